"""Puts an agent together for its mode, and takes it apart again so that nothing it changed stays changed."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from npuops import __version__
from npuops.clock import SystemClock
from npuops.errors import OptionError, StorageError, UsageError
from npuops.events import Event, Observer, Warned
from npuops.hostsched.actuate import Actuator
from npuops.hostsched.agent import Parts
from npuops.hostsched.agent_facts import LeftAlone, Mode, NotPutBack, Stepped
from npuops.hostsched.applied import Applied
from npuops.hostsched.familiarity import Ranges
from npuops.hostsched.glances import sums_for
from npuops.hostsched.guard import Guard
from npuops.hostsched.guard_options import ALL_ACTS, GuardOptions, acts_named
from npuops.hostsched.hint_socket import HintSocket
from npuops.hostsched.knobs import base_slice_ns
from npuops.hostsched.look_library import usual_reader
from npuops.hostsched.membership import MOST_TASKS, Membership
from npuops.hostsched.plan import Policy
from npuops.hostsched.recorder import Recorder
from npuops.hostsched.selection import Selection
from npuops.hostsched.self_protection import protected
from npuops.hostsched.signals import Signals
from npuops.hostsched.trace_file import SCHEMA, Header, TraceWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """What an agent is to be.

    Attributes:
        policy: None: it observes.
        ranges: of the features in the policy's training; None if it was not trained.
        acts: it tells the kernel, otherwise it advises.
        allow: what may be done to a task, by name; empty: everything.
        control_share: of the time of a policy that forecasts, in which they are not followed, for comparison.
        period_us: between looks, for its reservation.
        record: file of the trace; None: none is kept.
        leases: folder in which is noted what to put back; None: this user's.
    """

    policy: Policy | None
    acts: bool
    ranges: Ranges | None = None
    allow: tuple[str, ...] = ()
    control_share: float = GuardOptions().control_share
    period_us: int = 20_000
    record: Path | None = None
    leases: Path | None = None


@dataclass(frozen=True, slots=True)
class Assembly:
    """An agent's parts, ready to run.

    Attributes:
        parts: whom the loop asks.
        observe: whom it tells.
    """

    parts: Parts
    observe: Observer


@contextmanager
def assembled(options: AgentOptions, whom: Callable[[], Selection], tell: Observer) -> Iterator[Assembly]:
    """All parts, in the order in which they may fail without having changed anything.

    Args:
        options: what it is to be.
        whom: who opts in; asked last, so that it may start a command once everything else is there.
        tell: observers besides the trace.

    Raises:
        OptionError: nothing of that name can be allowed.
        UsageError: another agent of this user acts.
        StorageError: the trace or the leases cannot be written.
        RunError: the reaper does not start.
        KnobError: this machine does not let tasks be set.
    """
    clock = SystemClock()
    policy, guard = options.policy, None
    if policy is not None:
        allowed = acts_named(options.allow) if options.allow else ALL_ACTS
        guard = Guard(GuardOptions(allowed=allowed, control_share=options.control_share), options.ranges)
    with ExitStack() as stack:
        record = _recorder(options, tell, stack)
        _tell_reader(tell)
        hints = _hints(tell, stack)
        actuator = stack.enter_context(_acting(options, tell)) if options.acts and policy is not None else None
        spared = () if actuator is None else actuator.reapers
        signals = stack.enter_context(Signals(Membership(whom(), spared=spared), clock))
        protection = None
        if actuator is not None:
            base_slice_ns()  # it is asked for in a thread, which a reservation may not start
            protection = stack.enter_context(protected(options.period_us))

        told: set[str] = set()

        def observe(event: Event) -> None:
            if isinstance(event, Stepped) and policy is not None and (signals.refused or signals.left_out):
                _tell_left_alone(signals, told, tell)
            if isinstance(event, Stepped) and event.applied is not None:
                _recheck(signals, event.applied)
            if record is not None:
                record(event)
            tell(event)

        sums = sums_for(policy)
        parts = Parts(
            signals=signals,
            features=sums,
            hints=hints,
            policy=policy,
            guard=guard,
            actuator=actuator,
            protection=protection,
        )
        yield Assembly(parts, observe)


def _tell_left_alone(signals: Signals, told: set[str], tell: Observer) -> None:
    reasons = Counter(signals.refused.values())
    if signals.left_out:
        reasons[f"beyond the {MOST_TASKS} busiest, which are all that is watched"] = signals.left_out
    for why, count in reasons.items():
        if why not in told:
            told.add(why)
            tell(LeftAlone(count=count, why=why))


def _recheck(signals: Signals, applied: Applied) -> None:
    changed = [change.what for change in applied.changed]
    signals.recheck([*changed, *(denial.what for denial in applied.lost)])


@contextmanager
def _acting(options: AgentOptions, tell: Observer) -> Iterator[Actuator]:
    """Whoever wants to know learns what could not be put back, also when the run failed."""
    actuator = Actuator(options.leases)
    for leftover in actuator.leftovers:
        if leftover.back:
            words = f"a dead agent had left {len(leftover.back)} tasks and groups changed: they are put back"
            tell(Warned(step="restore", message=words))
    try:
        yield actuator
    finally:
        if denied := actuator.close().denied:
            tell(NotPutBack(denials=denied))


def _hints(tell: Observer, stack: ExitStack) -> HintSocket | None:
    """Hints help; that there is no place to hear them is no reason not to run."""
    try:
        return stack.enter_context(HintSocket())
    except (OptionError, UsageError, StorageError) as error:
        tell(Warned(step="hints", message=f"no hints: {error.message}", advice=error.advice))
        return None


def _tell_reader(tell: Observer) -> None:
    reader = usual_reader()
    if reader.library is None and not reader.wished:
        tell(Warned(step="looks", message=f"looks cost more CPU time: they are taken by {reader.words}"))


def _recorder(options: AgentOptions, tell: Observer, stack: ExitStack) -> Recorder | None:
    if options.record is None:
        return None
    acts = options.acts and options.policy is not None
    mode = Mode.OBSERVE if options.policy is None else Mode.ACT if acts else Mode.ADVISE
    header = Header(
        schema=SCHEMA,
        kernel=os.uname().release,
        cpus=os.cpu_count() or 1,
        policy=options.policy.name if options.policy is not None else "",
        mode=mode,
        period_us=options.period_us,
        began_unix_us=time.time_ns() // 1000,
        version=__version__,
    )
    return Recorder(stack.enter_context(TraceWriter(options.record, header)), tell)
