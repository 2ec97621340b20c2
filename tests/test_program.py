"""A program's timetable, and what is no program."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_machine import program
from npuops.errors import OptionError
from npuops.vnpu.program import LONGEST_US, Program, Step


def test_computing_and_transfers_overlap_and_the_overhead_comes_on_top() -> None:
    step = Step(name="a", op="Conv", compute_us=10, memory_us=15, overhead_us=2)
    assert step.duration_us(1.0, 1.0) == 17
    assert step.duration_us(0.5, 1.0) == 22, "half the clock: computing takes 20"
    assert step.duration_us(1.0, 4.0) == 62, "slow transfers: 60"


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.floats(0.1, 1))
def test_a_timetable_never_goes_back_and_a_slower_clock_never_helps(times: list[float], ratio: float) -> None:
    steps = tuple(Step(name=str(i), op="Conv", compute_us=us, memory_us=us / 3) for i, us in enumerate(times))
    made = Program(
        steps=steps, weights_bytes=0, activation_bytes=0, input_bytes=0, output_bytes=0, ops=frozenset({"Conv"})
    )
    fast, slow = made.step_ends_ns(1.0, 1.0), made.step_ends_ns(ratio, 1.0)
    assert list(fast) == sorted(fast)
    assert all(early <= late for early, late in zip(fast, slow, strict=True))
    assert fast[-1] == pytest.approx(sum(times) * 1000, abs=len(times))


@pytest.mark.parametrize("figure", [-1.0, float("nan"), float("inf"), 1e306, 2 * LONGEST_US])
@pytest.mark.parametrize("name", ["compute_us", "memory_us", "overhead_us", "dram_bytes", "macs"])
def test_no_step_takes_a_negative_or_endless_figure(name: str, figure: float) -> None:
    figures: dict[str, Any] = {"compute_us": 0.0, "memory_us": 0.0, name: figure * (1e6 if "_us" not in name else 1)}
    with pytest.raises(OptionError, match="'a'"):
        Step(name="a", op="Conv", **figures)


def test_the_longest_step_at_the_lowest_clock_and_the_slowest_memory_has_an_end() -> None:
    step = Step(name="a", op="Conv", compute_us=LONGEST_US, memory_us=LONGEST_US)
    made = replace(program(), steps=(step,))
    assert made.step_ends_ns(1e-5, 1000.0)[0] == pytest.approx(1e17)


def test_a_program_has_steps_sizes_and_the_classes_of_its_steps() -> None:
    made = program()
    with pytest.raises(OptionError, match="at least one step"):
        replace(made, steps=())
    for size in (-1, 2**50):
        with pytest.raises(OptionError, match="sizes must be from 0 to"):
            replace(made, weights_bytes=size)
    with pytest.raises(OptionError, match="lacks the classes of its own steps: Conv"):
        replace(made, ops=frozenset({"Add"}))
