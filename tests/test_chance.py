"""Chance that repeats itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from npuops.vnpu.chance import chance, draw

A_RUN = """
import sys
from hashlib import sha256
from made_machine import SECOND, Bench, program
from test_machine import PLAN

bench = Bench(seed=3, plan=PLAN)
tenant = bench.tenant(program(20_000, ops=("Conv", "MatMul", "Add", "Relu")))
bench.every(tenant, 30_000, 4 * SECOND)
bench.to(6 * SECOND)
print(sha256(repr((bench.events, bench.telemetry())).encode()).hexdigest())
"""


def test_a_run_is_the_same_in_another_process_whatever_the_order_of_its_sets() -> None:
    found = set()
    for hash_seed in ("0", "1", "4711"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(
            [sys.executable, "-c", A_RUN], env=environment, capture_output=True, text=True, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1
    assert len(found.pop()) == 65


def test_the_same_question_has_the_same_answer_and_another_one_another() -> None:
    assert draw(7, 3) == draw(7, 3) == 12296769318780836496
    assert draw(7, "hit", 3) != draw(7, "elements", 3)
    assert draw(7, 31) != draw(73, 1)
    assert len({draw(seed, number) for seed in range(20) for number in range(20)}) == 400


def test_it_is_even_and_below_one() -> None:
    found = [chance(1, number) for number in range(20_000)]
    assert min(found) >= 0
    assert max(found) < 1
    for tenth in range(10):
        share = sum(tenth / 10 <= each < (tenth + 1) / 10 for each in found) / len(found)
        assert 0.09 < share < 0.11
