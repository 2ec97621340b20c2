"""Real programs, played for real: each side does something, and nothing of either is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import msgspec
import numpy as np
import pytest

from npuops.eevdf.setting import SchedPolicy
from npuops.errors import MissingToolchainError, OptionError, ToolchainCrashError
from npuops.hostsched.hint import Kind
from npuops.hostsched.knobs import read_setting
from npuops.schedlab.outcome import tally, write_json
from npuops.schedlab.program_load import Need, ProgramLoad
from npuops.schedlab.program_outcome import ProgramOutcome
from npuops.schedlab.program_play import play_program
from npuops.schedlab.program_rivals import batch_weighted, niced, policed, sliced, under_agent, weighted
from npuops.schedlab.program_roles import Roles
from npuops.schedlab.program_wakeups import MESSENGERS, with_skipped
from npuops.schedlab.programs import PROGRAMS, program_named
from npuops.schedlab.rivals import ByAgent


def playable(load: ProgramLoad) -> ProgramLoad:
    """Or why not."""
    if missing := load.missing():
        pytest.skip(f"not installed: {', '.join(f'{need.command} (apt install {need.package})' for need in missing)}")
    return load


def session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


class Watcher:
    """A rival that only looks."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.kinds: set[Kind] = set()
        self.sessions: dict[str, int | None] = {}

    def __call__(self, roles: Roles) -> AbstractContextManager[None]:
        self.kinds = {role.kind for role in roles.all}
        self.sessions = {role.name: session_of(role.pid) for role in roles.all}
        self.pids = [pid for role in roles.all for pid in role.pids()]
        assert all(role.pid == self.sessions[role.name] for role in roles.all)
        assert all(role.patterns for role in roles.all)
        return nullcontext()


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_each_load_is_played_and_nothing_of_it_is_left(name: str) -> None:
    load, watcher = playable(PROGRAMS[name]), Watcher()
    outcome = play_program(load, 3.0, watcher, setting="watched", seed=5).outcome
    assert (outcome.load, outcome.setting, outcome.seed) == (name, "watched", 5)
    assert outcome.arrivals > 0
    assert 0 <= outcome.in_slo <= outcome.served <= outcome.arrivals
    assert outcome.p50_us is not None
    assert outcome.max_us is not None
    assert 0 < outcome.p50_us <= outcome.max_us
    assert outcome.batch_per_s >= 0
    assert watcher.kinds == {Kind.LATENCY, Kind.BATCH}
    assert len(set(watcher.sessions.values())) == 2
    assert gone(watcher.pids)
    assert msgspec.json.decode(write_json(outcome), type=ProgramOutcome) == outcome


@pytest.mark.slow
def test_a_rival_that_fails_leaves_nothing() -> None:
    watcher = Watcher()

    @contextmanager
    def failing(roles: Roles) -> Iterator[None]:
        watcher(roles)
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        play_program(MESSENGERS, 1.0, failing)
    assert watcher.pids
    assert gone(watcher.pids)


@pytest.mark.slow
def test_a_batch_side_that_dies_spoils_the_play() -> None:
    def killing(roles: Roles) -> AbstractContextManager[None]:
        os.kill(roles.batch[0].pid, signal.SIGKILL)
        return nullcontext()

    with pytest.raises(ToolchainCrashError, match="hogs ended before its time"):
        play_program(MESSENGERS, 0.5, killing)


@pytest.mark.slow
def test_an_answering_side_that_dies_spoils_the_play() -> None:
    def killing(roles: Roles) -> AbstractContextManager[None]:
        os.kill(roles.latency[0].pid, signal.SIGKILL)
        return nullcontext()

    with pytest.raises(ToolchainCrashError, match="messengers ended before its time"):
        play_program(MESSENGERS, 0.5, killing)


@pytest.mark.slow
def test_static_settings_reach_every_thread_and_session() -> None:
    def looking(roles: Roles) -> AbstractContextManager[None]:
        with niced(3)(roles), weighted(2)(roles), policed(SchedPolicy.IDLE)(roles), batch_weighted(7)(roles):
            role, batch = roles.latency[0], roles.batch[0]
            assert {os.getpriority(os.PRIO_PROCESS, tid) for tid in role.tids()} == {3}
            assert len(role.tids()) > 8
            assert {read_setting(tid).policy for tid in batch.tids()} == {SchedPolicy.IDLE}
            for one, nice in ((role, "2"), (batch, "7")):
                if Path(f"/proc/{one.pid}/autogroup").exists():
                    assert Path(f"/proc/{one.pid}/autogroup").read_text().split()[-1] == nice
        with sliced(200)(roles), policed(SchedPolicy.BATCH)(roles):
            assert {read_setting(tid).slice_us for tid in role.tids()} == {200}
            assert {read_setting(tid).policy for tid in batch.tids()} == {SchedPolicy.BATCH}
        return nullcontext()

    assert play_program(MESSENGERS, 0.3, looking).outcome.arrivals > 0


@pytest.mark.slow
def test_the_agent_is_a_rival_and_its_cost_is_known() -> None:
    reactive = ByAgent(name="reactive", policy="reactive", note="")
    take = play_program(MESSENGERS, 1.0, under_agent(reactive), setting="reactive")
    assert take.outcome.setting == "reactive"
    assert take.agent is not None
    assert take.agent.cpu_share > 0
    assert take.agent.looks > 0


@pytest.mark.slow
def test_an_agent_that_ends_within_the_window_spoils_the_play() -> None:
    reactive = ByAgent(name="reactive", policy="reactive", note="")
    with pytest.raises(ToolchainCrashError, match="the agent ended"):
        play_program(MESSENGERS, 3.0, under_agent(reactive, arguments=("--for", "0.5")))


def test_a_load_whose_programs_are_missing_names_the_packages() -> None:
    needs = (Need("no-such-server", "some-package"), Need("sh", "dash"), Need("no-such-tool", "other-package"))
    load = ProgramLoad("x", "x", 1, needs, MESSENGERS.set_up)
    with pytest.raises(MissingToolchainError) as caught:
        play_program(load, 1.0, Watcher())
    assert "no-such-server, no-such-tool" in caught.value.message
    assert caught.value.advice == "apt install other-package some-package"


def test_windows_of_no_length_are_refused() -> None:
    for seconds in (0.0, -1.0, float("nan")):
        with pytest.raises(OptionError, match="too short"):
            play_program(MESSENGERS, seconds, Watcher())


def test_an_unknown_load_gets_the_nearest() -> None:
    with pytest.raises(OptionError) as caught:
        program_named("redis-bild")
    assert "redis-build" in caught.value.advice


def test_wakeups_that_were_slept_through_are_misses() -> None:
    answers = with_skipped(np.array([80.0, 3500.0, 1000.0, 60.0]), 1000)
    assert sorted(answers.response_us.tolist()) == [60, 80, 500, 1000, 1500, 2500, 3500]
    assert answers.answered.sum() == 4
    assert set(answers.response_us[~answers.answered].tolist()) == {2500, 1500, 500}


def test_figures_count_what_was_not_answered_in_time() -> None:
    found = tally(np.array([1.0, 2.0, 3.0, 100.0]), np.array([True, True, False, True]), 3)
    assert found == {"arrivals": 4, "served": 3, "in_slo": 2, "p50_us": 2, "p99_us": 100, "max_us": 100}


def test_without_requests_there_are_no_figures() -> None:
    found = tally(np.empty(0), np.empty(0, bool), 3)
    assert (found["arrivals"], found["p50_us"], found["max_us"]) == (0, None, None)


def test_documents_that_are_none_are_refused() -> None:
    one = ProgramOutcome(
        load="x",
        setting="default",
        seed=0,
        seconds=1,
        slo_us=1000,
        batch_per_s=1,
        batch_unit="turns",
        clean_share=1,
        client_ahead=None,
        **tally(np.array([1.0]), np.array([True]), 3),  # type: ignore[arg-type]
    )
    assert msgspec.json.decode(write_json(one), type=ProgramOutcome) == one
    assert one.slo_share == 1
    assert one.is_clean
