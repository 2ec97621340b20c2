from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from npuops.clock import SystemClock
from npuops.errors import OptionError, StorageError, UsageError
from npuops.events import Event, Warned
from npuops.hostsched.agent import Agent
from npuops.hostsched.agent_facts import AgentEnded, AgentStarted, Mode, OwnPlaceChanged, PeriodChanged, Stepped
from npuops.hostsched.assembly import AgentOptions, assembled
from npuops.hostsched.energy_meter import Energy
from npuops.hostsched.features import State
from npuops.hostsched.knobs import read_attributes
from npuops.hostsched.pace import Pace
from npuops.hostsched.plan import Plan, Policy
from npuops.hostsched.policy_names import policy_named
from npuops.hostsched.run_summary import Summing
from npuops.hostsched.selection import Selection
from npuops.hostsched.trace_file import read_trace
from npuops.hostsched.wakeup import Wakeup

TICKS = """
import time
open('/proc/self/comm', 'w').write('hs-ticks')
print('ready', flush=True)
while True: time.sleep(0.003)
"""
LOWER = "static:nice=6@hs-ticks"
needs_nice = pytest.mark.skipif(os.geteuid() != 0, reason="CAP_SYS_NICE is missing: nice could not be taken back")


@pytest.fixture(autouse=True)
def own_hints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPUOPS_HINT_SOCKET", str(tmp_path / "hints.sock"))


@pytest.fixture
def ticker() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", TICKS], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child.pid
        child.kill()


@dataclass
class Seen:
    """An observer; the agent ends after so many steps."""

    most: int
    events: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def steps(self) -> list[Stepped]:
        return [event for event in self.events if isinstance(event, Stepped)]

    def is_over(self, caught: tuple[int, ...]) -> bool:
        return bool(caught) or len(self.steps) >= self.most


def run(options: AgentOptions, pid: int, seen: Seen) -> AgentEnded:
    clock = SystemClock()
    with (
        Wakeup(clock.now_us) as wakeup,
        assembled(options, lambda: Selection(pids=(pid,)), seen) as assembly,
    ):
        agent = Agent(assembly.parts, Pace(10_000), clock, observe=assembly.observe)
        return agent.run(wakeup, seen.is_over)


def options(tmp_path: Path, policy: Policy | None = None, *, acts: bool = False, **more: object) -> AgentOptions:
    return AgentOptions(policy=policy, acts=acts, leases=tmp_path, **more)  # type: ignore[arg-type]


def test_observing_sees_the_task_decides_nothing_and_changes_nothing(ticker: int, tmp_path: Path) -> None:
    before, seen = read_attributes(ticker), Seen(5)
    ended = run(options(tmp_path), ticker, seen)
    assert isinstance(seen.events[0], AgentStarted)
    assert seen.events[0].mode is Mode.OBSERVE
    assert ended.steps == 5
    last = seen.steps[-1]
    assert [task.pid for task in last.state.frame.tasks] == [ticker]
    assert (last.plan, last.checked, last.orders, last.applied) == (Plan(), None, None, None)
    assert read_attributes(ticker) == before
    assert list(tmp_path.glob("*.leases")) == [], "observing needs no reaper and no lease"


def test_advising_decides_and_changes_nothing(ticker: int, tmp_path: Path) -> None:
    before, seen = read_attributes(ticker), Seen(5)
    run(options(tmp_path, policy_named(LOWER)), ticker, seen)
    levels = [level.name for level in seen.steps[-1].plan.levels.values()]
    assert levels == ["nice=6"]
    assert seen.steps[-1].orders is not None
    assert seen.steps[-1].applied is None
    assert read_attributes(ticker) == before


@needs_nice
def test_acting_changes_sees_what_it_changed_and_puts_it_back(ticker: int, tmp_path: Path) -> None:
    before, seen, inside = read_attributes(ticker), Seen(30), []

    def watch(event: Event) -> None:
        seen(event)
        inside.append(os.getpriority(os.PRIO_PROCESS, ticker))

    summing = Summing()

    def tell(event: Event) -> None:
        watch(event)
        summing(event)

    clock = SystemClock()
    acting = options(tmp_path, policy_named(LOWER), acts=True)
    with Wakeup(clock.now_us) as wakeup, assembled(acting, lambda: Selection(pids=(ticker,)), tell) as assembly:
        ended = Agent(assembly.parts, Pace(10_000), clock, observe=assembly.observe).run(wakeup, seen.is_over)
    summing(ended)
    assert 6 in inside
    assert seen.steps[-1].state.frame.settings[0].nice == 6, "the frame after a change shows it"
    assert read_attributes(ticker) == before
    summary = summing.summary(Energy(joules=None, words="no meter here"))
    assert (summary.changed, summary.stuck, summary.tasks, summary.steps) == (1, 0, 1, 30)
    assert "changed 1 things, all put back" in "\n".join(summary.lines())


@needs_nice
def test_what_stands_is_confirmed_now_and_then_so_that_somebody_elses_change_is_noticed(
    ticker: int, tmp_path: Path
) -> None:
    seen = Seen(1000)

    def interfere(event: Event) -> None:
        seen(event)
        if len(seen.steps) == 20:
            os.setpriority(os.PRIO_PROCESS, ticker, 9)

    def is_over(caught: tuple[int, ...]) -> bool:
        noticed = any(step.applied is not None and step.applied.lost for step in seen.steps)
        return seen.is_over(caught) or noticed

    clock = SystemClock()
    acting = options(tmp_path, policy_named(LOWER), acts=True)
    with Wakeup(clock.now_us) as wakeup, assembled(acting, lambda: Selection(pids=(ticker,)), interfere) as assembly:
        Agent(assembly.parts, Pace(10_000), clock, observe=assembly.observe).run(wakeup, is_over)
    lost = [len(step.applied.lost) for step in seen.steps if step.applied is not None]
    assert sum(lost) == 1
    assert os.getpriority(os.PRIO_PROCESS, ticker) == 9, "theirs stays"
    first = seen.steps[10].orders
    assert all(step.orders is first for step in seen.steps[10:20]), "orders that do not change are not made again"


class Breaks:
    """A policy that fails after it lowered something."""

    def __init__(self, good: Policy, error: BaseException) -> None:
        self._good, self._left, self._error = good, 10, error

    @property
    def name(self) -> str:
        return "breaks"

    def decide(self, state: State) -> Plan:
        self._left -= 1
        if self._left < 0:
            raise self._error
        return self._good.decide(state)


@needs_nice
@pytest.mark.parametrize("error", [StorageError("as ours"), RuntimeError("a bug"), KeyboardInterrupt(), SystemExit(3)])
def test_whatever_ends_the_loop_everything_is_put_back(error: BaseException, ticker: int, tmp_path: Path) -> None:
    before, mine, seen = read_attributes(ticker), read_attributes(0), Seen(1000)
    with pytest.raises(type(error)):
        run(options(tmp_path, Breaks(policy_named(LOWER), error), acts=True), ticker, seen)
    assert any(step.applied is not None and step.applied.changed for step in seen.steps)
    assert read_attributes(ticker) == before
    assert read_attributes(0) == mine
    assert list(tmp_path.glob("*.leases")) == []


class Slow:
    """A policy that takes longer than its agent has."""

    def __init__(self, good: Policy, takes_s: float, every: int = 1) -> None:
        self._good, self._takes_s, self._every, self._asked = good, takes_s, every, 0

    @property
    def name(self) -> str:
        return "slow"

    def decide(self, state: State) -> Plan:
        self._asked += 1
        if self._asked % self._every == 0:
            time.sleep(self._takes_s)
        return self._good.decide(state)


@needs_nice
def test_whose_steps_do_not_fit_looks_less_often_still_holds_and_puts_back(ticker: int, tmp_path: Path) -> None:
    before, seen = read_attributes(ticker), Seen(12)
    ended = run(options(tmp_path, Slow(policy_named(LOWER), 0.025), acts=True), ticker, seen)
    periods = [event.change.after_us for event in seen.events if isinstance(event, PeriodChanged)]
    assert periods[:2] == [20_000, 40_000], "at 40 ms a step of 25 ms fits"
    assert ended.overruns >= 6
    assert seen.steps[-1].state.frame.settings[0].nice == 6
    assert read_attributes(ticker) == before


@needs_nice
def test_a_step_that_takes_longer_than_the_loan_loses_it_and_the_agent_goes_on(ticker: int, tmp_path: Path) -> None:
    before, seen = read_attributes(ticker), Seen(40)
    run(options(tmp_path, Slow(policy_named(LOWER), 1.0, every=15), acts=True), ticker, seen)
    revoked = [step.applied.revoked for step in seen.steps if step.applied is not None and step.applied.revoked]
    assert any("heartbeat was late" in why for why in revoked)
    changes = [change for step in seen.steps if step.applied is not None for change in step.applied.changed]
    assert len([change for change in changes if not change.back]) >= 2, "lowered, put back by the reaper, lowered again"
    assert read_attributes(ticker) == before


class Waits:
    """An agent's place that is too bad once."""

    words = "as it was started"

    def follow(self, at_us: int) -> str:
        del at_us
        why = "" if self.words == "better" else "it waited"
        self.words = "better"
        return why


def test_that_the_agent_itself_waited_too_long_is_told_once(ticker: int, tmp_path: Path) -> None:
    clock, seen = SystemClock(), Seen(5)
    observing = options(tmp_path)
    with Wakeup(clock.now_us) as wakeup, assembled(observing, lambda: Selection(pids=(ticker,)), seen) as assembly:
        parts = replace(assembly.parts, protection=Waits())
        Agent(parts, Pace(10_000), clock, observe=assembly.observe).run(wakeup, seen.is_over)
    started = [event.protection for event in seen.events if isinstance(event, AgentStarted)]
    changes = [(event.protection, event.why) for event in seen.events if isinstance(event, OwnPlaceChanged)]
    assert (started, changes) == (["as it was started"], [("better", "it waited")])


@needs_nice
def test_a_task_that_ends_is_no_trouble(ticker: int, tmp_path: Path) -> None:
    seen = Seen(40)

    def end_it(event: Event) -> None:
        seen(event)
        if len(seen.steps) == 10:
            os.kill(ticker, signal.SIGKILL)

    clock = SystemClock()
    acting = options(tmp_path, policy_named(LOWER), acts=True)
    with Wakeup(clock.now_us) as wakeup, assembled(acting, lambda: Selection(pids=(ticker,)), end_it) as assembly:
        Agent(assembly.parts, Pace(10_000), clock, observe=assembly.observe).run(wakeup, seen.is_over)
    assert seen.steps[-1].state.frame.tasks == ()


def test_a_signal_ends_it_between_two_steps(ticker: int, tmp_path: Path) -> None:
    seen = Seen(1000)

    def ask(event: Event) -> None:
        seen(event)
        if len(seen.steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    clock = SystemClock()
    with (
        Wakeup(clock.now_us) as wakeup,
        assembled(options(tmp_path), lambda: Selection(pids=(ticker,)), ask) as assembly,
    ):
        ended = Agent(assembly.parts, Pace(10_000), clock, observe=assembly.observe).run(wakeup, seen.is_over)
    assert ended.steps == 3


def test_the_trace_holds_every_step_as_it_was(ticker: int, tmp_path: Path) -> None:
    seen = Seen(6)
    run(options(tmp_path, policy_named(LOWER), record=tmp_path / "t"), ticker, seen)
    trace = read_trace(tmp_path / "t")
    assert (trace.header.mode, trace.header.policy, trace.damage) == ("advise", LOWER, "")
    assert [entry.frame.at_us for entry in trace.entries] == [step.state.frame.at_us for step in seen.steps]
    assert [entry.checked for entry in trace.entries] == [step.checked for step in seen.steps]


def test_a_trace_that_cannot_go_on_is_told_once_and_ends_nothing(ticker: int, tmp_path: Path) -> None:
    limit = 1500
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "from npuops.cli.main import main; main()"
    )
    words = [sys.executable, "-c", code, "hostsched", "observe", "--pid", str(ticker), "--for", "2"]
    words += ["--record", str(tmp_path / "small"), "--cpu-share", "100"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the trace ends here") == 1
    trace = read_trace(tmp_path / "small")
    assert len(trace.entries) >= 1


def test_without_a_place_for_hints_it_goes_on_and_says_so(
    ticker: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPUOPS_HINT_SOCKET", str(tmp_path / ("x" * 200)))
    seen = Seen(2)
    run(options(tmp_path), ticker, seen)
    assert ["no hints" in event.message for event in seen.events if isinstance(event, Warned)] == [True]


def test_what_cannot_be_is_refused_before_anything_begins(ticker: int, tmp_path: Path) -> None:
    started: list[int] = []

    def whom() -> Selection:
        started.append(1)
        return Selection(pids=(ticker,))

    bad = AgentOptions(policy=policy_named("default"), acts=True, allow=("demot",), leases=tmp_path)
    with pytest.raises(OptionError, match="demot"), assembled(bad, whom, Seen(1)):
        pass
    missing = AgentOptions(policy=policy_named("default"), acts=True, leases=tmp_path / "nowhere")
    with pytest.raises((StorageError, UsageError)), assembled(missing, whom, Seen(1)):
        pass
    assert started == []
