"""Mixes played on this machine's kernel, by real processes."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from npuops.eevdf.mix import REST, Activity, Doing, Mix, Player, arrivals_ns
from npuops.errors import OptionError, StorageError, ToolchainCrashError
from npuops.schedlab.load_program import calibrate, load_program
from npuops.schedlab.outcome import judge
from npuops.schedlab.recording import UNSERVED
from npuops.schedlab.schedule_file import Calibration
from npuops.schedlab.stage import choose_cpus, open_stage, play

LIMIT_S = 60.0
COMPUTE, SCAN = Activity(Doing.COMPUTE), Activity(Doing.SCAN)
CHAT, BURSTS = Activity(Doing.PIPE, work_us=30), Activity(Doing.CYCLE, work_us=500, gap_us=2000)
APP = Activity(Doing.SERVE, work_us=300, gap_us=5000, slo_us=5000)
TOO_MUCH = Activity(Doing.SERVE, work_us=2000, gap_us=1000, periodic=True, slo_us=5000)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return load_program(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def calibration(program: Path) -> Calibration:
    return calibrate(program)


def mix(*players: Player, phase_ms: int = 150, cpus: int = 1) -> Mix:
    return Mix("test", (phase_ms * 1000,) * len(players[0].acts), players, cpus)


def wait_for_end(pid: int) -> None:
    """Also of a process that is not our child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ready, _, _ = select.select([descriptor], [], [], LIMIT_S)
    os.close(descriptor)
    assert ready, f"process {pid} is still there"


def test_each_request_is_answered_after_it_came_and_in_its_turn(program: Path, calibration: Calibration) -> None:
    asked = mix(Player("A", (APP, REST, APP)))
    recording = play(asked, 5, calibration=calibration, program=program)
    record = recording.of("A")
    assert (record.arrivals_ns == arrivals_ns(asked, asked.players[0], 5)).all()
    answered = record.done_ns != UNSERVED
    assert answered.any()
    assert (record.done_ns[answered] > record.arrivals_ns[answered]).all()
    assert (np.diff(record.done_ns[answered]) > 0).all()
    assert record.voluntary[0] >= 1
    assert judge(recording).parts[0].arrivals > 0


def test_work_is_as_much_as_was_asked(program: Path, calibration: Calibration) -> None:
    recording = play(mix(Player("A", (APP,)), phase_ms=400), 1, calibration=calibration, program=program)
    record = recording.of("A")
    served = int((record.done_ns != UNSERVED).sum())
    assert served * 299 <= record.progress[0] <= (served + 1) * 301
    assert record.progress[0] * 300 < record.cpu_ns[0] < record.progress[0] * 20_000, "a loud machine works slower"


def test_who_changes_its_role_drops_what_waits_and_begins_afresh(program: Path, calibration: Calibration) -> None:
    asked = mix(Player("A", (TOO_MUCH, REST, TOO_MUCH)))
    record = play(asked, 1, calibration=calibration, program=program).of("A")
    first = record.arrivals_ns < 150_000_000
    unserved = record.done_ns == UNSERVED
    assert unserved[first].any()
    assert unserved[first][-1]
    assert not unserved[~first][0], "the first one of the new phase is served first"


def test_who_goes_on_serving_goes_on_with_what_waits(program: Path, calibration: Calibration) -> None:
    record = play(mix(Player("A", (TOO_MUCH, TOO_MUCH))), 1, calibration=calibration, program=program).of("A")
    answered = record.done_ns != UNSERVED
    assert answered[: answered.sum()].all(), "first come, first served"
    later = record.done_ns[answered & (record.arrivals_ns < 150_000_000)]
    assert (later > 150_000_000).any()


def test_each_phase_is_booked_by_itself(program: Path, calibration: Calibration) -> None:
    recording = play(
        mix(Player("A", (COMPUTE, REST, SCAN)), Player("B", (REST, COMPUTE, REST))),
        1, calibration=calibration, program=program,
    )  # fmt: skip
    a, b = recording.of("A"), recording.of("B")
    assert a.progress[1] == b.progress[0] == b.progress[2] == 0
    assert min(a.progress[0], a.progress[2], b.progress[1]) > 0
    assert a.cpu_ns[1] < a.cpu_ns[0]
    assert recording.timeline.sum() == pytest.approx(a.progress.sum() + b.progress.sum(), rel=0.05)


def test_who_rests_sleeps_through_the_ends_of_phases(program: Path, calibration: Calibration) -> None:
    late = Activity(Doing.SERVE, work_us=100, gap_us=10_000, slo_us=5000)
    players = Player("A", (REST,) * 10), Player("B", (*(REST,) * 9, late))
    recording = play(mix(*players, phase_ms=20), 2, calibration=calibration, program=program)
    assert int(recording.of("A").voluntary.sum()) <= 1
    assert int(recording.of("B").voluntary[:9].sum()) <= 1
    assert (recording.of("B").done_ns > recording.of("B").arrivals_ns).any()


def test_both_ends_of_a_pipe_take_turns(program: Path, calibration: Calibration) -> None:
    acts = (CHAT, REST, CHAT, CHAT)
    players = (Player("P0", acts, peer="P1"), Player("P1", acts, peer="P0"))
    recording = play(mix(*players), 1, calibration=calibration, program=program)
    turns = np.array([recording.of("P0").progress, recording.of("P1").progress])
    assert (turns[:, [0, 2, 3]] > 1).all()
    assert (turns[:, 1] == 0).all()
    assert (np.abs(turns[0] - turns[1]) <= 1).all()


def test_who_works_in_bursts_sleeps_between_them(program: Path, calibration: Calibration) -> None:
    record = play(mix(Player("C", (BURSTS,)), phase_ms=400), 1, calibration=calibration, program=program).of("C")
    bursts = record.progress[0] / 500
    assert bursts > 3
    assert abs(record.voluntary[0] - bursts) <= 3


def test_what_is_set_before_it_begins_rules_the_play(program: Path, calibration: Calibration) -> None:
    def demote(pids: Mapping[str, int]) -> None:
        os.setpriority(os.PRIO_PROCESS, pids["B"], 19)

    both = mix(Player("A", (COMPUTE,)), Player("B", (COMPUTE,)), phase_ms=600)
    recording = play(both, 1, on_start=demote, calibration=calibration, program=program)
    assert recording.of("A").progress[0] > 4 * recording.of("B").progress[0]
    assert recording.clean_share is not None
    assert 0 <= recording.clean_share <= 1


def test_players_have_their_names_sessions_and_cpus(program: Path, calibration: Calibration) -> None:
    players = (Player("A", (REST,)), Player("a-very-long-name-indeed", (REST,), 3), Player("C", (REST,), 3))
    asked = mix(*players)
    with open_stage(asked, 1, calibration=calibration, program=program) as stage:
        pids = [stage.pids[player.name] for player in players]
        names = [Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() for pid in pids]
        sessions = [os.getsid(pid) for pid in pids]
        pinned = [os.sched_getaffinity(pid) for pid in pids]
        assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in pids] == [0, 0, 0]
    assert names == ["A", "a-very-long-nam", "C"]
    assert sessions[0] != sessions[1] == sessions[2]
    assert os.getsid(0) not in sessions
    if (os.cpu_count() or 1) > 1:
        assert pinned == [set(choose_cpus(asked))] * 3


def test_a_mix_for_the_whole_machine_is_not_pinned(program: Path, calibration: Calibration) -> None:
    everywhere = os.sched_getaffinity(0)
    if len(everywhere) != os.cpu_count():
        pytest.skip("this process may not use every CPU")
    asked = mix(Player("A", (REST,)), cpus=len(everywhere))
    with open_stage(asked, 1, calibration=calibration, program=program) as stage:
        assert os.sched_getaffinity(stage.pids["A"]) == everywhere


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("begun", [False, True])
def test_nobody_is_left_after_an_exception(
    program: Path, calibration: Calibration, error: type[BaseException], begun: bool
) -> None:
    pids: list[int] = []

    def fail_on_stage() -> None:
        with open_stage(mix(Player("A", (SCAN,)), Player("B", (APP,), 1), phase_ms=60_000), 1,
                        calibration=calibration, program=program) as stage:  # fmt: skip
            pids.extend(stage.pids.values())
            if begun:
                stage.go()
            raise error

    with pytest.raises(error):
        fail_on_stage()
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


DRIVER = """
import os, sys
from pathlib import Path
from npuops.eevdf.mix import Activity, Doing, Mix, Player
from npuops.schedlab.stage import open_stage
from npuops.schedlab.schedule_file import Calibration
acts = (Activity(Doing.COMPUTE),)
mix = Mix("driven", (600_000_000,), (Player("A", acts), Player("B", acts, 1)), 1)
with open_stage(mix, 1, calibration=Calibration(compute_per_ms=10**6, scan_per_ms=10**6),
                program=Path(sys.argv[1])) as stage:
    if sys.argv[2] == "begun":
        stage.go()
    if sys.argv[3] == "heir" and os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
    print(*stage.pids.values(), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("when", ["waiting", "begun"])
@pytest.mark.parametrize("whose", ["alone", "heir"])
def test_nobody_is_left_after_who_plays_was_killed(program: Path, when: str, whose: str) -> None:
    """Not even if a child of it lives on, and holds open all that it held."""
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, program, when, whose], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout is not None
        pids = [int(word) for word in driver.stdout.readline().split()]
        driver.kill()
        assert len(pids) == 2
        for pid in pids:
            wait_for_end(pid)


@pytest.mark.parametrize("begun", [False, True])
def test_a_player_that_is_killed_spoils_the_play_and_is_named(
    program: Path, calibration: Calibration, begun: bool
) -> None:
    asked = mix(Player("A", (SCAN,)), Player("B", (SCAN,)), phase_ms=60_000)
    with open_stage(asked, 1, calibration=calibration, program=program) as stage:
        if begun:
            stage.go()
        os.kill(stage.pids["B"], signal.SIGKILL)
        assert stage.ended(LIMIT_S), "without the one the other's work means nothing"
        with pytest.raises(ToolchainCrashError, match="B was killed by SIGKILL"):
            _ = stage.finish() if begun else stage.go()


def test_a_pipe_whose_other_end_is_killed_spoils_the_play(program: Path, calibration: Calibration) -> None:
    players = (Player("P0", (CHAT,), peer="P1"), Player("P1", (CHAT,), peer="P0"))
    with open_stage(mix(*players, phase_ms=60_000), 1, calibration=calibration, program=program) as stage:
        stage.go()
        os.kill(stage.pids["P0"], signal.SIGKILL)
        with pytest.raises(ToolchainCrashError, match=r"P0 was killed by SIGKILL|P1 failed: Broken pipe"):
            stage.finish()


def test_players_that_are_stopped_are_ended_all_the_same(program: Path, calibration: Calibration) -> None:
    with open_stage(mix(Player("A", (SCAN,)), phase_ms=60_000), 1, calibration=calibration, program=program) as stage:
        stage.go()
        pid = stage.pids["A"]
        os.kill(pid, signal.SIGSTOP)
    assert not Path(f"/proc/{pid}").exists()


def test_two_plays_at_once_do_not_mix(program: Path, calibration: Calibration) -> None:
    def one(seed: int) -> tuple[np.ndarray, np.ndarray]:
        asked = mix(Player("A", (APP,)), Player("H", (SCAN,)), phase_ms=400)
        record = play(asked, seed, calibration=calibration, program=program).of("A")
        return record.arrivals_ns, arrivals_ns(asked, asked.players[0], seed)

    with ThreadPoolExecutor(2) as pool:
        for played, asked in pool.map(one, (1, 2)):
            assert (played == asked).all()


def test_what_happens_can_be_seen_while_it_does(program: Path, calibration: Calibration) -> None:
    with open_stage(mix(Player("A", (COMPUTE,)), phase_ms=300), 1, calibration=calibration, program=program) as stage:
        assert stage.peek()[0].status is None
        stage.go()
        assert stage.finish().of("A").progress[0] > 0
        assert stage.peek()[0].status == 0


def test_answers_are_known_as_soon_as_they_are_given(program: Path, calibration: Calibration) -> None:
    asked = mix(Player("B", (APP,)), Player("A", (APP,)), phase_ms=300)
    with open_stage(asked, 1, calibration=calibration, program=program) as stage:
        assert len(stage.answers("A")[0]) == 0
        stage.go()
        record = stage.finish().of("A")
        arrivals, done = stage.answers("A")
        with pytest.raises(OptionError):
            stage.answers("C")
    assert (arrivals == record.arrivals_ns).all()
    assert (done == record.done_ns).all()


def test_a_stage_plays_once_and_only_after_go(program: Path, calibration: Calibration) -> None:
    with open_stage(mix(Player("A", (REST,))), 1, calibration=calibration, program=program) as stage:
        with pytest.raises(OptionError):
            stage.finish()
        stage.go()
        with pytest.raises(OptionError):
            stage.go()


def test_a_mix_for_more_cpus_than_there_are_is_refused_before_anything_starts() -> None:
    with pytest.raises(OptionError):
        choose_cpus(mix(Player("A", (REST,)), cpus=100_000))
    with pytest.raises(OptionError):
        choose_cpus(mix(Player("A", (REST,))), (0, 1))
    with pytest.raises(OptionError):
        choose_cpus(mix(Player("A", (REST,))), (99_999,))


@pytest.mark.parametrize(("text", "mode"), [("#!/nowhere/at/all\n", 0o755), ("", 0o644), ("\x7fELF", 0o755)])
def test_a_program_that_does_not_start_is_a_clear_error(
    tmp_path: Path, calibration: Calibration, text: str, mode: int
) -> None:
    damaged = tmp_path / "load"
    damaged.write_text(text)
    damaged.chmod(mode)
    with (
        pytest.raises(StorageError, match="cannot be started"),
        open_stage(mix(Player("A", (REST,))), 1, calibration=calibration, program=damaged),
    ):
        pytest.fail("it started")


def test_a_program_that_ends_at_once_is_a_clear_error(tmp_path: Path, calibration: Calibration) -> None:
    wrong = tmp_path / "load"
    wrong.write_text("#!/bin/sh\necho 'not today' >&2\nexit 4\n")
    wrong.chmod(0o755)
    with (
        pytest.raises(ToolchainCrashError, match="not today"),
        open_stage(mix(Player("A", (REST,))), 1, calibration=calibration, program=wrong),
    ):
        pytest.fail("it started")
