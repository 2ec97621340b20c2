"""What the kernel of one machine did in three short plays, recorded once, is done again by the simulator.

The traces are fixed, so no luck is in these tests; bounds are between what the rules give and what wrong rules give.
Each file tells its kernel and machine (`read_trace(...).play`).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from npuops.eevdf.compiled import COMPILES
from npuops.eevdf.rules import Rules
from npuops.schedlab.switch_agreement import Agreement, agreement_lines, agreement_of, moved_share, windows
from npuops.schedlab.switch_demand import demand_of, shares_of, ticks_of
from npuops.schedlab.switch_picks import Picks, picks_of
from npuops.schedlab.switch_replay import replay
from npuops.schedlab.switch_trace import SwitchTrace, read_trace

FOLDER = Path(__file__).parent / "switch_traces"
BUILD, SHORT, CHAT = "build", "build-short-slice", "burst"
pytestmark = pytest.mark.skipif(not COMPILES, reason="a replay takes minutes without numba, which is not installed")


@cache
def trace(name: str) -> SwitchTrace:
    return read_trace(FOLDER / f"{name}.npz")


@cache
def agreement(name: str) -> Agreement:
    return agreement_of(trace(name))


@cache
def picks(name: str, **rules: Any) -> Picks:
    return picks_of(trace(name), Rules(**rules))


@pytest.mark.slow
@pytest.mark.parametrize("name", [BUILD, SHORT, CHAT])
def test_every_task_gets_in_the_replay_what_it_got_from_the_kernel(name: str) -> None:
    found = agreement(name)
    assert found.moved_share < 0.06
    for row in found.rows:
        assert row.simulator.cpu_ms == pytest.approx(row.kernel.cpu_ms, rel=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("name", [BUILD, SHORT, CHAT])
def test_tasks_wait_as_long_in_the_replay_as_on_the_kernel(name: str) -> None:
    for row in agreement(name).rows:
        assert row.kernel.waits_ms is not None
        assert row.simulator.waits_ms is not None
        for kernel, simulator in zip(row.kernel.waits_ms, row.simulator.waits_ms, strict=True):
            assert simulator == pytest.approx(kernel, rel=0.35, abs=2.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [BUILD, SHORT, CHAT])
def test_the_kernel_decides_as_the_rules_say(name: str) -> None:
    found = picks(name)
    for tally, least in ((found.next, 0.9), (found.wakes, 0.9), (found.ticks, 0.9)):
        if tally.decided > 100:
            assert tally.share is not None
            assert tally.share > least


WRONG = {
    "CFS": (BUILD, {"scheduler": "cfs"}),
    "lag is forgotten": (BUILD, {"place_lag": False}),
    "sleepers leave at once": (BUILD, {"delay_dequeue": False}),
    "a longer slice": (BUILD, {"base_slice_ns": 4_000_000}),
    "lag is forgotten, beside a pipe": (CHAT, {"place_lag": False}),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG)
def test_decisions_tell_eevdf_from_other_rules(wrong: str) -> None:
    name, rules = WRONG[wrong]
    right, other = picks(name).next.share, picks(name, **rules).next.share
    assert right is not None
    assert other is not None
    assert right - other > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "wrong"),
    [(SHORT, {"preempt_short": False}), (BUILD, {"run_to_parity": False}), (BUILD, {"scheduler": "cfs"})],
)
def test_wakeups_tell_wrong_rules_of_preemption(name: str, wrong: dict[str, Any]) -> None:
    right, other = picks(name).wakes.share, picks(name, **wrong).wakes.share
    assert right is not None
    assert other is not None
    assert right - other > 0.02


@pytest.mark.slow
def test_waits_tell_the_replay_under_eevdf_from_one_under_cfs() -> None:
    kernel = trace(BUILD)
    app = 0
    waits = [np.median(np.diff(one.waits(app)[:, :2])) for one in (kernel, replay(kernel))]
    under_cfs = np.median(np.diff(replay(kernel, Rules(scheduler="cfs")).waits(app)[:, :2]))
    assert abs(waits[1] - waits[0]) < 1_000_000
    assert waits[0] - under_cfs > 1_000_000


@pytest.mark.parametrize("name", [BUILD, SHORT, CHAT])
def test_a_replay_asks_for_what_was_recorded_and_leaves_others_what_they_had(name: str) -> None:
    kernel, again = trace(name), replay(trace(name))
    ticks = ticks_of(kernel)
    assert ticks is not None
    assert ticks.hz == 250
    had, has = shares_of(kernel), shares_of(again)
    assert has[-1] == had[-1], "the CPU is somebody else's at the same times"
    for player, lines in enumerate(demand_of(kernel).lines[: len(kernel.play.actors)]):
        endless = lines[-1, 0] > 1 << 59
        assert lines[:-1, 0].sum() + (0 if endless else lines[-1, 0]) <= had[player]
    assert moved_share(kernel, kernel) == 0.0
    assert windows(kernel).sum(axis=1).tolist() == [had[player] for player in range(len(kernel.play.actors))]


def test_the_report_names_every_task_and_every_kind_of_decision() -> None:
    found = agreement(BUILD)
    text = "\n".join(agreement_lines(found))
    assert all(row.name in text for row in found.rows)
    assert all(words in text for words in ("who is next", "wake-up", "tick", found.kernel))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Agreement) == found
