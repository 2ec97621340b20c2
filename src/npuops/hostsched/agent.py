"""The agent's one loop: look, decide, check, tell the kernel, record, sleep to the next moment of the grid.

Everything that is decided is decided in plain functions elsewhere; everything that is changed goes through the
actuator, which is closed, and so puts everything back, however the loop ends. If this process is killed, its reaper
does the same.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from npuops.clock import Clock
from npuops.events import Observer, ignore
from npuops.hostsched.agent_facts import AgentEnded, AgentStarted, Mode, OwnPlaceChanged, PeriodChanged, Stepped
from npuops.hostsched.applied import NOTHING, Applied
from npuops.hostsched.features import State
from npuops.hostsched.frame import Frame
from npuops.hostsched.guard import Checked
from npuops.hostsched.hint import Hint
from npuops.hostsched.liveliness import Liveliness
from npuops.hostsched.orders import Standing
from npuops.hostsched.pace import Pace
from npuops.hostsched.plan import Orders, Plan, Policy
from npuops.hostsched.service_notice import ServiceNotice
from npuops.hostsched.wakeup import Wakeup

_LEAST_WALL_NS = 100_000_000
_CONFIRM_US: Final = 1_000_000
"""Orders that did not change are given again so often: somebody else may have set a task."""
_WATCHER_US: Final = 1_000_000
"""What the reaper spends is asked for so often: it counts in the agent's budget, and asking costs too."""
_ALLOCATIONS: Final = 50_000
"""Of the collector of cycles: steps leave none, so the usual 700 would cost and find nothing."""


class Looks(Protocol):
    """Sees those who opted in: `signals.Signals`."""

    def look(self, hints: Mapping[int, Hint]) -> Frame:
        """One frame."""
        ...


class Hears(Protocol):
    """Has what applications said: `hint_socket.HintSocket`."""

    def heard(self) -> Mapping[int, Hint]:
        """The last word on each thread."""
        ...


class Sums(Protocol):
    """Makes a state of frames: `features.Features`."""

    def update(self, frame: Frame) -> State:
        """The state after this frame."""
        ...


class Checks(Protocol):
    """Judges plans: `guard.Guard`."""

    def check(self, state: State, plan: Plan) -> Checked:
        """What may be done of it."""
        ...


class Applies(Protocol):
    """Tells the kernel: `actuate.Actuator`."""

    def apply(self, orders: Orders) -> Applied:
        """What it took; counts as a beat."""
        ...

    def beat(self) -> bool:
        """The agent lives; False when the reaper has put everything back meanwhile."""
        ...

    def watcher_ns(self) -> int:
        """CPU time of whoever puts things back should the agent die."""
        ...


class Protects(Protocol):
    """Keeps the agent from waiting for a CPU: `self_protection.SelfProtection`."""

    words: str
    """How it stands."""

    def follow(self, at_us: int) -> str:
        """Take the place that is needed now; why, if it is another one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Whom the loop asks.

    Attributes:
        signals: for frames.
        features: for states.
        hints: None where nobody listens for them.
        policy: None in `observe`.
        guard: None in `observe`.
        actuator: None unless in `act`.
        protection: None unless in `act`.
    """

    signals: Looks
    features: Sums
    hints: Hears | None = None
    policy: Policy | None = None
    guard: Checks | None = None
    actuator: Applies | None = None
    protection: Protects | None = None

    @property
    def mode(self) -> Mode:
        """As far as its parts go."""
        if self.policy is None or self.guard is None:
            return Mode.OBSERVE
        return Mode.ADVISE if self.actuator is None else Mode.ACT


class Agent:
    """For one run, in the main thread."""

    def __init__(
        self,
        parts: Parts,
        pace: Pace,
        clock: Clock,
        *,
        observe: Observer = ignore,
        notice: ServiceNotice | None = None,
    ) -> None:
        """Prepare; nothing is looked at yet."""
        self._parts = parts
        self._pace = pace
        self._clock = clock
        self._observe = observe
        self._notice = notice or ServiceNotice({})
        self._standing = Standing()
        self._given: Orders | None = None
        self._given_us = 0
        self._liveliness = Liveliness()
        self._spent_ns = self._watcher_ns = self._asked_us = 0

    def run(self, wakeup: Wakeup, is_over: Callable[[tuple[int, ...]], bool]) -> AgentEnded:
        """Step until `is_over`, which is asked before each step and given the signals that came since.

        Raises:
            NpuopsError: of the parts. What was changed is put back by whoever owns the actuator (`assembly`).
        """
        parts, policy = self._parts, self._parts.policy
        name = policy.name if policy is not None else ""
        own = "" if parts.protection is None else parts.protection.words
        self._observe(AgentStarted(mode=parts.mode, policy=name, period_us=self._pace.period_us, protection=own))
        began_ns, began_cpu_ns = time.monotonic_ns(), time.process_time_ns()
        self._spent_ns = self._cpu_ns(self._clock.now_us())
        due_us, steps = self._clock.now_us(), 0
        self._notice.say("READY=1")
        with _few_collections():
            while not is_over(wakeup.caught()):
                if wakeup.sleep_until(due_us):
                    self._given = None  # it may be the reaper that ended
                    continue  # a signal, or a child that ended: ask first
                due_us = self._paced_step(due_us)
                steps += 1
        self._notice.say("STOPPING=1")
        wall_ns = time.monotonic_ns() - began_ns
        spent_ns = time.process_time_ns() - began_cpu_ns
        return AgentEnded(
            steps=steps,
            seconds=wall_ns / 1e9,
            cpu_share=spent_ns / wall_ns if wall_ns >= _LEAST_WALL_NS else None,
            overruns=self._pace.overruns,
        )

    def _paced_step(self, due_us: int) -> int:
        began_us = self._clock.now_us()
        step = self._step(max(began_us - due_us, 0))
        self._observe(step)
        ended_us = self._clock.now_us()
        before_ns, self._spent_ns = self._spent_ns, self._cpu_ns(ended_us)
        lively = self._liveliness.lively(step.state.frame, step.orders)
        next_us, change = self._pace.after(began_us, ended_us, max(self._spent_ns - before_ns, 0) / 1000, lively=lively)
        if change is not None:
            self._observe(PeriodChanged(change=change))
        protection = self._parts.protection
        if protection is not None and (why := protection.follow(ended_us)):
            self._observe(OwnPlaceChanged(protection=protection.words, why=why))
        self._notice.alive(ended_us)
        return next_us

    def _cpu_ns(self, now_us: int) -> int:
        """Of this process and its reaper so far."""
        actuator = self._parts.actuator
        if actuator is not None and now_us - self._asked_us >= _WATCHER_US:
            self._watcher_ns, self._asked_us = actuator.watcher_ns(), now_us
        return time.process_time_ns() + self._watcher_ns

    def _step(self, late_us: int) -> Stepped:
        parts = self._parts
        frame = parts.signals.look(parts.hints.heard() if parts.hints is not None else {})
        state = parts.features.update(frame)
        if parts.policy is None or parts.guard is None:
            return Stepped(state=state, proposed=Plan(), checked=None, orders=None, applied=None, late_us=late_us)
        proposed = parts.policy.decide(state)
        checked = parts.guard.check(state, proposed)
        orders = self._standing.orders(checked.plan, frame)
        applied = self._apply(parts.actuator, orders, frame.at_us) if parts.actuator is not None else None
        return Stepped(state=state, proposed=proposed, checked=checked, orders=orders, applied=applied, late_us=late_us)

    def _apply(self, actuator: Applies, orders: Orders, at_us: int) -> Applied:
        """What stands already is only confirmed, now and then: that costs as much as deciding."""
        if orders is self._given and at_us - self._given_us < _CONFIRM_US and actuator.beat():
            return NOTHING
        applied = actuator.apply(orders)
        self._given = orders if applied == NOTHING else None  # what was denied, or just changed, is looked at again
        self._given_us = at_us
        return applied


@contextmanager
def _few_collections() -> Iterator[None]:
    """What is there now stays: it is no garbage, and need not be looked through again and again."""
    before = gc.get_threshold()
    gc.freeze()  # without a collection before it: protected, that would take as long as a whole second
    gc.set_threshold(_ALLOCATIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
