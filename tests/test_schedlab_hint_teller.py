"""What the apps of a play tell, over the agent's own socket, and what the agent makes of it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from npuops.clock import SystemClock
from npuops.eevdf.mix import REST, Activity, Doing, Mix, Player
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.hint_place import VARIABLE
from npuops.hostsched.hint_socket import HintSocket
from npuops.hostsched.trace_file import read_trace
from npuops.schedlab.hint_teller import EVERY_US, HintTeller
from npuops.schedlab.load_program import calibrate, load_program
from npuops.schedlab.schedule_file import Calibration
from npuops.schedlab.stage import Stage, open_stage
from npuops.schedlab.stage_hints import hint_of

LIMIT_S = 60.0
APP = Activity(Doing.SERVE, work_us=300, gap_us=4000, slo_us=50_000)
TOO_MUCH = Activity(Doing.SERVE, work_us=3000, gap_us=1000, periodic=True, slo_us=2000)
SCAN, CHAT = Activity(Doing.SCAN), Activity(Doing.PIPE, work_us=30)
MIX = Mix(
    "told",
    (200_000, 200_000, 200_000),
    (
        Player("A", (APP, TOO_MUCH, REST)),
        Player("H", (SCAN, SCAN, SCAN)),
        Player("P0", (REST, CHAT, CHAT), peer="P1"),
        Player("P1", (REST, CHAT, CHAT), peer="P0"),
    ),
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return load_program(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def calibration(program: Path) -> Calibration:
    return calibrate(program)


def without_time(hint: Hint | None) -> tuple[object, ...] | None:
    return None if hint is None else (hint.kind, hint.slo_us, hint.queued, hint.served, hint.missed)


def expected(stage: Stage, name: str, at_us: int) -> Hint | None:
    assert stage.start_ns is not None
    player = next(player for player in stage.mix.players if player.name == name)
    return hint_of(stage.mix, player, *stage.answers(name), at_us - stage.start_ns // 1000, at_us)


def test_the_agent_hears_what_the_simulator_would_have_said(
    program: Path, calibration: Calibration, tmp_path: Path
) -> None:
    clock = SystemClock()
    kinds: set[Kind | None] = set()
    queued = 0
    with (
        HintSocket(str(tmp_path / "hints")) as heard,
        open_stage(MIX, 3, program=program, calibration=calibration) as stage,
    ):
        teller = HintTeller(stage, heard.path)
        teller.tell()
        assert heard.heard() == {}, "nothing is done yet"
        start_us = stage.go() // 1000
        for moment_us in range(0, MIX.duration_us, EVERY_US):
            clock.sleep_until(start_us + moment_us)
            before = {name: without_time(expected(stage, name, clock.now_us())) for name in stage.pids}
            teller.tell()
            found = {name: heard.heard().get(pid) for name, pid in stage.pids.items()}
            after = {name: without_time(expected(stage, name, clock.now_us())) for name in stage.pids}
            for name, hint in found.items():
                if before[name] == after[name]:
                    assert without_time(hint) == before[name]
                if hint is not None:
                    kinds.add(hint.kind)
                    queued = max(queued, hint.queued or 0)
        stage.finish()
        teller.tell()
        teller.close()
        assert heard.heard() == {}, "who hung up says nothing"
        assert heard.counts.malformed == heard.counts.foreign == 0
    assert kinds == {Kind.LATENCY, Kind.BATCH, Kind.BACKGROUND}
    assert queued > 5


@pytest.mark.slow
def test_an_agent_that_observes_records_the_same_words(program: Path, calibration: Calibration, tmp_path: Path) -> None:
    socket, trace = tmp_path / "s", tmp_path / "trace"
    with open_stage(MIX, 3, program=program, calibration=calibration) as stage:
        words = [sys.executable, "-m", "npuops.cli.main", "hostsched", "observe", "--json", "--record", str(trace)]
        words += [word for pid in stage.pids.values() for word in ("--pid", str(pid))]
        agent = subprocess.Popen(words, stdout=subprocess.PIPE, env={**os.environ, VARIABLE: str(socket)})
        try:
            assert agent.stdout is not None
            ready, _, _ = select.select([agent.stdout], [], [], LIMIT_S)
            assert ready, "the agent says nothing"
            teller = HintTeller(stage, str(socket))
            clock, start_us = SystemClock(), stage.go() // 1000
            for moment_us in range(0, MIX.duration_us, EVERY_US):
                clock.sleep_until(start_us + moment_us)
                teller.tell()
            record = stage.finish().of("A")
            teller.close()
        finally:
            agent.send_signal(signal.SIGINT)
            agent.communicate(timeout=LIMIT_S)
    names = {pid: name for name, pid in stage.pids.items()}
    found = read_trace(trace)
    assert not found.damage
    told: dict[str, list[Hint]] = {name: [] for name in names.values()}
    for entry in found.entries:
        for task, hint in zip(entry.frame.tasks, entry.frame.hints, strict=True):
            if hint is not None and task.pid in names:
                told[names[task.pid]].append(hint)
    assert {hint.kind for hint in told["H"]} == {Kind.BATCH}
    assert {hint.kind for hint in told["P0"]} == {Kind.BACKGROUND}
    assert {hint.kind for hint in told["A"]} == {Kind.LATENCY}
    served = [hint.served for hint in told["A"]]
    assert served == sorted(served)
    assert served[-1] <= int((record.done_ns >= 0).sum())
    assert 0 < max(hint.missed for hint in told["A"]) <= served[-1]
