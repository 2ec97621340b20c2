"""Recorded on this machine's kernel, whatever else runs there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from npuops.eevdf.mix import Activity, Doing, Mix, Player
from npuops.errors import DataError
from npuops.schedlab.load_program import calibrate, load_program
from npuops.schedlab.stage import open_stage
from npuops.schedlab.switch_demand import shares_of
from npuops.schedlab.switch_recorder import TRACEFS, NoTraceError, record, watch
from npuops.schedlab.switch_trace import STAYS, Event, SwitchTrace
from npuops.schedlab.validation_cells import Cell, treatment_of

MIX = Mix(
    "short",
    (300_000,),
    (
        Player("A", (Activity(Doing.SERVE, work_us=500, gap_us=4000, slo_us=2000),)),
        Player("C", (Activity(Doing.CYCLE, work_us=2000, gap_us=700),)),
        Player("H", (Activity(Doing.COMPUTE),)),
        Player("P", (Activity(Doing.PIPE, work_us=30),), peer="Q"),
        Player("Q", (Activity(Doing.PIPE, work_us=30),), peer="P"),
    ),
)


def why_not() -> str:
    try:
        with watch([os.getpid()], [0], buffer_kib=64):
            return ""
    except NoTraceError as refused:
        return refused.message


MISSING = why_not()
needs_tracefs = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def recorded() -> SwitchTrace:
    return record(Cell(MIX, treatment_of("nice=5@H")), 3, calibrate(load_program()))


def instances() -> set[str]:
    return {each.name for each in (TRACEFS / "instances").glob(f"npuops-switches-{os.getpid()}-*")}


@needs_tracefs
def test_each_task_that_comes_goes_and_its_time_is_what_the_kernel_charged(recorded: SwitchTrace) -> None:
    assert list(recorded.faults()) == []
    switches = recorded.of_kind(Event.SWITCH)
    for player in range(len(MIX.players)):
        came, went = (switches[:, column] == player for column in (4, 3))
        assert came.sum() - went.sum() in (0, 1), "at most the last turn goes on beyond the play"
        charged = switches[went, 6]
        if recorded.play.inferred == 0:
            had = shares_of(recorded)[player]
            last = recorded.play.duration_ns - switches[came, 0][-1] if came.sum() > went.sum() else 0
            assert charged.sum() == pytest.approx(had - last, abs=4_000_000 + 20_000 * len(charged))
    assert sum(shares_of(recorded).values()) == recorded.play.duration_ns


@needs_tracefs
def test_what_was_set_is_written_down_and_a_pipe_is_woken_by_its_peer(recorded: SwitchTrace) -> None:
    by_name = {actor.name: actor for actor in recorded.play.actors}
    assert by_name["H"].setting.nice == 5
    assert by_name["C"].naps
    wakes = recorded.of_kind(Event.WAKE)
    assert ((wakes[:, 3] == 4) & (wakes[:, 4] == 3)).any(), "P wakes Q"
    assert (np.diff(recorded.events[:, 0]) >= 0).all()
    slept = recorded.of_kind(Event.SWITCH)
    assert (slept[slept[:, 3] == 3, STAYS] == 0).any()


def fail_while_watching() -> None:
    with watch([os.getpid()], [0], buffer_kib=64):
        assert instances()
        raise ZeroDivisionError


@needs_tracefs
def test_nothing_is_left_in_tracefs_also_after_a_failure() -> None:
    with pytest.raises(ZeroDivisionError):
        fail_while_watching()
    assert instances() == set()


KILLED = """
import os, sys, time
from npuops.schedlab.switch_recorder import watch
with watch([os.getpid()], [0], buffer_kib=64) as watched:
    print(watched.folder, flush=True)
    sys.stdin.read()
"""


@needs_tracefs
def test_who_was_killed_leaves_what_records_nothing_and_the_next_removes_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    folder = Path(child.stdout.readline().strip())
    assert folder.is_dir()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert (folder / "tracing_on").read_text().strip() == "0"
    with watch([os.getpid()], [0], buffer_kib=64):
        assert not folder.exists()


@needs_tracefs
def test_records_that_do_not_fit_are_told_and_not_replayed() -> None:

    with open_stage(MIX, 3, calibration=calibrate(load_program())) as stage:
        pids = list(stage.pids.values())
        cpus = sorted(os.sched_getaffinity(pids[0]))
        with watch(pids, cpus, buffer_kib=4) as watched:
            stage.go()
            stage.finish()
            with pytest.raises(DataError, match="lost"):
                watched.stop()


def test_without_tracefs_it_is_said_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NoTraceError, match="cannot be recorded") as refused, watch([1], [0], root=tmp_path):
        pass
    assert "root" in refused.value.advice
