"""Rivals on the real kernel, with the real agent in a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from npuops.eevdf.mix import Activity, Doing, Mix, Player
from npuops.errors import ToolchainCrashError
from npuops.hostsched.knobs import read_setting
from npuops.schedlab.hint_teller import HintTeller
from npuops.schedlab.kernel_theatre import KernelTheatre, Script, attend
from npuops.schedlab.line_up import line_up
from npuops.schedlab.load_program import calibrate, load_program
from npuops.schedlab.outcome import judge
from npuops.schedlab.process_family import living_cpu_ns
from npuops.schedlab.rivals import ByAgent, Scripted
from npuops.schedlab.schedule_file import Calibration
from npuops.schedlab.stage import open_stage
from npuops.schedlab.theatre import CannotPlayError

APP = Activity(Doing.SERVE, work_us=300, gap_us=5000, slo_us=5000)
SCAN = Activity(Doing.SCAN)
MIX = Mix("small", (400_000, 400_000), (Player("A", (APP, SCAN)), Player("H", (SCAN, SCAN))))
RIVALS = {rival.name: rival for rival in line_up(("all",), {}, {})}
pytestmark = pytest.mark.slow
needs_nice = pytest.mark.skipif(os.geteuid() != 0, reason="CAP_SYS_NICE is missing: nice could not be taken back")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return load_program(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def calibration(program: Path) -> Calibration:
    return calibrate(program)


@pytest.fixture
def theatre(program: Path, calibration: Calibration) -> KernelTheatre:
    return KernelTheatre(calibration, program=program)


def test_the_default_plays_and_nothing_is_done(theatre: KernelTheatre) -> None:
    take = theatre.play(MIX, RIVALS["default"], 1, hints=False, filmed=True)
    assert take.actions == ()
    assert take.agent is None
    assert judge(take.recording).parts[0].arrivals > 0


@needs_nice
def test_a_script_sets_its_tasks_at_the_start_of_each_phase(program: Path, calibration: Calibration) -> None:
    seen: list[tuple[int, int, int]] = []
    with open_stage(MIX, 1, calibration=calibration, program=program) as stage:
        oracle = RIVALS["oracle"]
        assert isinstance(oracle, Scripted)
        script = Script(stage, oracle)

        def act(phase: int) -> None:
            script.set(phase)
            seen.append((phase, read_setting(stage.pids["A"]).nice, read_setting(stage.pids["H"]).nice))

        act(0)
        attend(stage, [(400_000, act)])
        stage.finish()
    assert seen == [(0, 0, 19), (1, 0, 0)]


@needs_nice
@pytest.mark.parametrize("hints", [False, True])
def test_the_real_agent_acts_and_tells_what_it_cost(theatre: KernelTheatre, hints: bool) -> None:
    take = theatre.play(MIX, RIVALS["reactive"], 1, hints=hints, filmed=True)
    assert take.agent is not None
    assert take.agent.looks > 0
    assert take.agent.stuck == 0
    assert 0 < take.agent.cpu_share < 1
    assert {action.player for action in take.actions} <= {"A", "H"}
    if hints:
        assert any(action.player == "H" for action in take.actions), "with hints it knows at once who only computes"


def test_an_agent_that_does_not_begin_is_told_with_its_words(theatre: KernelTheatre) -> None:
    wrong = ByAgent(name="x", policy="static:nonsense", note="")
    with pytest.raises(ToolchainCrashError, match="SETTING@WHOM"):
        theatre.play(MIX, wrong, 1, hints=False, filmed=False)


def test_reservations_are_left_out_where_tasks_are_pinned(theatre: KernelTheatre) -> None:
    if (os.cpu_count() or 1) == 1:
        pytest.skip("one CPU: nothing is pinned here")
    with pytest.raises(CannotPlayError, match="pinned"):
        theatre.play(MIX, RIVALS["reservations"], 1, hints=False, filmed=False)


def test_a_policy_that_is_not_there_cannot_play(theatre: KernelTheatre, tmp_path: Path) -> None:
    with pytest.raises(CannotPlayError, match="no learned policy"):
        theatre.play(MIX, ByAgent(name="x", policy="learned", note="", folder=tmp_path), 1, hints=False, filmed=False)


def test_a_teller_without_a_listener_disturbs_nobody(program: Path, calibration: Calibration, tmp_path: Path) -> None:
    with open_stage(MIX, 1, calibration=calibration, program=program) as stage:
        teller = HintTeller(stage, str(tmp_path / "nobody.sock"))
        attend(stage, [], teller=teller)
        assert stage.finish().of("A").arrivals_ns.size > 0
    assert teller.sent == 0
    teller.close()


def test_the_cpu_time_of_a_family_never_shrinks_and_grows_with_its_work() -> None:
    before = now = living_cpu_ns(os.getpid())
    assert before > 0
    while now == before:  # the kernel brings a running thread's account up to date at its next tick
        assert sum(range(200_000)) > 0
        now = living_cpu_ns(os.getpid())
        assert now >= before
