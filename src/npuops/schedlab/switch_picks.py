"""Every decision of a recorded kernel beside what the rules would have decided in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from npuops.eevdf.follower import Answer, Follower
from npuops.eevdf.rules import Rules
from npuops.eevdf.setting import FAIR
from npuops.schedlab.switch_demand import Ticks, ticks_of
from npuops.schedlab.switch_replay import rules_of
from npuops.schedlab.switch_trace import BOOKED, KIND, ONE, OTHER, STAYS, TIME, Event, SwitchTrace

BLUR_NS: Final = 20_000
"""CPU times of the trace and of the kernel's account may differ by so much: interrupts, and the time that a switch
itself takes, are told to one or the other."""
_AT_ONCE_NS: Final = 100_000
"""A task that should go goes by then: as the interrupt or the system call ends."""
_LATE_NS: Final = 1_000_000


class Tally(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Decisions of one kind.

    Attributes:
        decided: those that could go two ways, and where the rules are sure.
        agreed: of these, the kernel did the same.
        unsure: not counted: a little CPU time more or less would have turned them.
    """

    decided: int = 0
    agreed: int = 0
    unsure: int = 0

    @property
    def share(self) -> float | None:
        """Of those decided, agreed."""
        return self.agreed / self.decided if self.decided else None

    def add(self, answer: Answer, *, same: bool) -> None:
        """One more."""
        if answer.rivals < 2:
            return
        self.unsure += not answer.sure
        self.decided += answer.sure
        self.agreed += answer.sure and same


class Picks(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All decisions of a trace.

    Attributes:
        next: who gets the CPU, when it changes hands between tasks of the play.
        wakes: whether a task that wakes takes the CPU at once.
        ticks: whether a tick ends a turn.
    """

    next: Tally = msgspec.field(default_factory=Tally)
    wakes: Tally = msgspec.field(default_factory=Tally)
    ticks: Tally = msgspec.field(default_factory=Tally)


def can_follow(trace: SwitchTrace) -> bool:
    """One CPU and one session, and no task above the fair class: else too much is decided elsewhere."""
    actors = trace.play.actors
    one_session = len({actor.session for actor in actors}) == 1
    return trace.play.cpus == 1 and one_session and all(actor.setting.policy in FAIR for actor in actors)


def picks_of(trace: SwitchTrace, rules: Rules | None = None) -> Picks:
    """Ask the rules at every step; `can_follow` says where that means something.

    Raises:
        OptionError: a task above the fair class.
    """
    follower = Follower([actor.setting for actor in trace.play.actors], rules_of(trace, rules), BLUR_NS)
    found, ticks = Picks(), ticks_of(trace)
    gone = _goes(trace)
    last_tick = -1
    for (moment, kind, one, other, stays, booked), goes in zip(
        trace.events[:, [TIME, KIND, ONE, OTHER, STAYS, BOOKED]].tolist(), gone, strict=True
    ):
        running = follower.running
        if kind == Event.WAKE:
            answer = follower.wake(moment, one)
            if running >= 0 and goes is not None:
                found.wakes.add(answer, same=(answer.task != running) == goes)
        elif kind == Event.TICK:
            slot = _slot(ticks, moment)
            if running >= 0 and slot > last_tick:
                answer = follower.tick(moment)
                if goes is not None:
                    found.ticks.add(answer, same=(answer.task != running) == goes)
            last_tick = max(slot, last_tick)
        else:
            answer = follower.change(moment, max(other, -1), stays=bool(stays), booked_ns=booked)
            if other >= 0:
                found.next.add(answer, same=answer.task == other)
    return found


def _slot(ticks: Ticks | None, moment: int) -> int:
    """Number of the tick that a timer interrupt is; -1 if it is another timer's."""
    if ticks is None:
        return -1
    span = 1_000_000_000 // ticks.hz
    number, late = divmod(moment - ticks.first_ns + span // 8, span)
    return number if late < span // 8 + _LATE_NS else -1


def _goes(trace: SwitchTrace) -> Iterator[bool | None]:
    """For each event: whether the running task leaves the CPU at once for another one of the play.

    None if it leaves for none of the play, or sleeps, or another event comes between: then nobody can say what this
    one led to.
    """
    rows = trace.events[:, [TIME, KIND, ONE, OTHER, STAYS]].tolist()
    for place, (moment, *_) in enumerate(rows):
        then = rows[place + 1] if place + 1 < len(rows) else None
        if then is None or then[0] - moment > _AT_ONCE_NS:
            yield False
        elif then[1] != Event.SWITCH or then[3] < 0 or not then[4]:
            yield None
        else:
            yield True
