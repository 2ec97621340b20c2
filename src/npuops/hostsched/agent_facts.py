"""What the agent tells its observers: frozen facts, one for each thing that happened."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from npuops.events import Event
from npuops.hostsched.applied import Applied, Denial
from npuops.hostsched.features import State
from npuops.hostsched.guard import Checked
from npuops.hostsched.pace import PeriodChange
from npuops.hostsched.plan import Orders, Plan


class Mode(StrEnum):
    """How far the agent goes."""

    OBSERVE = "observe"
    """It looks; nothing is decided, nothing is changed."""
    ADVISE = "advise"
    """It decides and tells; nothing is changed."""
    ACT = "act"
    """It changes tasks that opted in, and puts them back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStarted(Event):
    """The first look is about to be taken.

    Attributes:
        mode: how far it goes.
        policy: its name; "" in `observe`.
        period_us: between looks.
        protection: the agent's own place on the CPU, in words; "" unless it acts.
    """

    mode: Mode
    policy: str
    period_us: int
    protection: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlaced(Event):
    """Where the network of a learned policy runs, and why there."""

    place: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftAlone(Event):
    """Some who opted in are not touched, or not even watched; told once for each reason.

    Attributes:
        count: threads and processes, when it was told.
        why: in words.
    """

    count: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stepped(Event):
    """One look, and what came of it.

    Attributes:
        state: what was seen.
        proposed: what the policy wanted; empty in `observe`.
        checked: what the guard left of it, and why; None in `observe`.
        orders: what the kernel was told, or in `advise` would have been; None in `observe`.
        applied: what the kernel took; None unless in `act`.
        late_us: after its moment.
    """

    state: State
    proposed: Plan
    checked: Checked | None
    orders: Orders | None
    applied: Applied | None
    late_us: int

    @property
    def plan(self) -> Plan:
        """What holds, or in `advise` would hold, until the next step."""
        return self.proposed if self.checked is None else self.checked.plan


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodChanged(Event):
    """Steps did not fit the period, or fit a shorter one again."""

    change: PeriodChange


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkClosed(Event):
    """The policy's network is not asked any more.

    Attributes:
        inferences: of this run.
        modelled_mj: of a virtual device for all of them, above its idle power; None elsewhere.
    """

    inferences: int
    modelled_mj: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPlaceChanged(Event):
    """The agent itself waited too long for a CPU, or may do with less again.

    Attributes:
        protection: its place from now on, in words.
        why: in words; also why a better one is not to be had.
    """

    protection: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotPutBack(Event):
    """The agent ends, and the kernel does not let it give these back; the lease file stays, for `restore`."""

    denials: tuple[Denial, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEnded(Event):
    """The loop is over; the last fact.

    Attributes:
        steps: looks taken.
        seconds: from the first to the end.
        cpu_share: of one core, used by the agent's process; None if it did not run long enough to tell.
        overruns: steps that took longer than their period.
    """

    steps: int
    seconds: float
    cpu_share: float | None
    overruns: int
