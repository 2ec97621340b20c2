"""The health of a device: a table of (state, signal) → state, and nothing outside of it.

`evidence.py` turns readings into signals; of several in one look one decides, and the words of all are kept.
A pair that the table lacks is an error, and nothing happens. docs/devices.md shows the same table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Health(StrEnum):
    """What a dashboard shows."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    GONE = "gone"
    UNKNOWN = "unknown"


class State(StrEnum):
    """Where a device is."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    CORRECTING = "correcting"
    THROTTLED = "throttled"
    RESETTING = "resetting"
    UNCORRECTED = "uncorrected"
    OVERHEATED = "overheated"
    HUNG = "hung"
    WRONG = "wrong"
    OFFLINE = "offline"
    GONE = "gone"


HEALTH_OF: Final[Mapping[State, Health]] = {
    State.UNKNOWN: Health.UNKNOWN,
    State.HEALTHY: Health.HEALTHY,
    State.CORRECTING: Health.DEGRADED,
    State.THROTTLED: Health.DEGRADED,
    State.RESETTING: Health.UNHEALTHY,
    State.UNCORRECTED: Health.UNHEALTHY,
    State.OVERHEATED: Health.UNHEALTHY,
    State.HUNG: Health.UNHEALTHY,
    State.WRONG: Health.UNHEALTHY,
    State.OFFLINE: Health.UNHEALTHY,
    State.GONE: Health.GONE,
}


class Signal(StrEnum):
    """What one look at a device says; of several, the one that stands last here decides."""

    SETTLED = "settled"
    """Quiet for the whole time that the state asks for; given by `step` alone."""
    FADED = "faded"
    """As long without anything wrong, but nothing that tells health can be read any more; given by `step` alone."""
    QUIET = "quiet"
    """Sources of health were read, and nothing is wrong."""
    BLIND = "blind"
    """Present, but nothing that tells health could be read."""
    PASSED = "passed"
    """The canary inference answered right."""
    CORRECTED = "corrected"
    THROTTLING = "throttling"
    RESET = "reset"
    UNCORRECTED = "uncorrected"
    TRIPPED = "tripped"
    """At or above the critical temperature, or switched off by it."""
    WRONG = "wrong"
    """The canary inference answered wrong."""
    HANG = "hang"
    OFFLINE = "offline"
    ABSENT = "absent"


_RANK: Final[Mapping[Signal, int]] = {signal: rank for rank, signal in enumerate(Signal)}
_GOOD: Final = frozenset({Signal.PASSED, Signal.QUIET})
_CALM: Final = _GOOD | {Signal.BLIND}

TABLE: Final = """
state        settled  faded    quiet        blind        passed      corrected    throttling   reset      uncorrected  tripped     wrong  hang  offline  absent
unknown      -        -        healthy      unknown      healthy     correcting   throttled    resetting  uncorrected  overheated  wrong  hung  offline  gone
healthy      -        -        healthy      unknown      healthy     correcting   throttled    resetting  uncorrected  overheated  wrong  hung  offline  gone
correcting   healthy  unknown  correcting   correcting   correcting  correcting   throttled    resetting  uncorrected  overheated  wrong  hung  offline  gone
throttled    healthy  unknown  throttled    throttled    throttled   throttled    throttled    resetting  uncorrected  overheated  wrong  hung  offline  gone
resetting    healthy  unknown  resetting    resetting    resetting   resetting    resetting    resetting  uncorrected  overheated  wrong  hung  offline  gone
uncorrected  healthy  unknown  uncorrected  uncorrected  resetting   uncorrected  uncorrected  resetting  uncorrected  overheated  wrong  hung  offline  gone
overheated   -        -        throttled    overheated   throttled   throttled    throttled    resetting  uncorrected  overheated  wrong  hung  offline  gone
hung         -        -        hung         hung         resetting   hung         hung         resetting  hung         hung        wrong  hung  offline  gone
wrong        healthy  -        wrong        wrong        wrong       wrong        wrong        wrong      wrong        wrong       wrong  hung  offline  gone
offline      -        -        resetting    offline      resetting   resetting    resetting    resetting  uncorrected  overheated  wrong  hung  offline  gone
gone         -        -        resetting    resetting    resetting   resetting    resetting    resetting  uncorrected  overheated  wrong  hung  offline  gone
"""  # noqa: E501 - a matrix is read by its columns
"""`-`: no such pair. Three rules, which the tests hold against every input: a state that was bad is left for healthy
only by `settled`; a device that comes back, or moves on after it hung, is `resetting` until it has been quiet; one
that answered wrong is cured by canaries that pass and by nothing else that leaves it running."""


def _parsed(table: str) -> dict[tuple[State, Signal], State]:
    heading, *rows = (line.split() for line in table.strip().splitlines())
    signals = [Signal(word) for word in heading[1:]]
    return {
        (State(row[0]), signal): State(word)
        for row in rows
        for signal, word in zip(signals, row[1:], strict=True)
        if word != "-"
    }


NEXT: Final[Mapping[tuple[State, Signal], State]] = _parsed(TABLE)

SETTLE_S: Final[Mapping[State, int]] = {
    State.CORRECTING: 60,
    State.THROTTLED: 10,
    State.RESETTING: 10,
    State.UNCORRECTED: 300,
    State.WRONG: 60,
}
"""How long a state wants nothing wrong to be seen before it is left as `settled`."""

BY_CANARY: Final = frozenset({State.WRONG})
"""States whose quiet time begins and ends with a canary that passed: silence proves nothing there."""

HYSTERESIS_C: Final = 5.0
"""A device that was too hot must be this much below the limit before it counts as cooled."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A signal with its reason in words."""

    signal: Signal
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """The state of a device, why, and since when.

    Attributes:
        state: the row of the table.
        why: the reason in words, kept while the state lasts and nothing worse is seen.
        since_us: when the state was entered.
        quiet_since_us: since when nothing wrong was seen; None after something was.
    """

    state: State
    why: str
    since_us: int
    quiet_since_us: int | None = None

    @property
    def health(self) -> Health:
        """What a dashboard shows for the state."""
        return HEALTH_OF[self.state]


def next_state(state: State, signal: Signal) -> State:
    """The table's answer.

    Raises:
        LookupError: the table has no such pair.
    """
    if (state, signal) not in NEXT:
        raise LookupError(f"no way leads from {state} by {signal}")
    return NEXT[state, signal]


def step(condition: Condition, observed: Sequence[Observed], now_us: int) -> Condition:
    """Apply what one look gave; there is always at least one signal."""
    signals = {each.signal for each in observed}
    worst = max(signals, key=lambda signal: _RANK[signal])
    quiet_since_us = _quiet_since_us(condition, signals, worst, now_us)
    signal = _settled(condition.state, worst, quiet_since_us, now_us)
    state = next_state(condition.state, signal)
    stays = state is condition.state
    if not stays and quiet_since_us is not None:
        quiet_since_us = now_us
    return Condition(
        state=state,
        why=_why(condition, observed, signal, state),
        since_us=condition.since_us if stays else now_us,
        quiet_since_us=quiet_since_us,
    )


def _quiet_since_us(condition: Condition, signals: set[Signal], worst: Signal, now_us: int) -> int | None:
    """Since when nothing wrong was seen, this look included; after a wrong answer, since when answers are right."""
    if condition.state in BY_CANARY:
        begins, ends = Signal.PASSED in signals, Signal.WRONG in signals
    else:
        begins, ends = worst in _CALM, worst not in _CALM
    if ends:
        return None
    return now_us if condition.quiet_since_us is None and begins else condition.quiet_since_us


def _settled(state: State, worst: Signal, quiet_since_us: int | None, now_us: int) -> Signal:
    """The worst signal, or that it was quiet for long enough."""
    if quiet_since_us is None or state not in SETTLE_S or now_us - quiet_since_us < SETTLE_S[state] * 1_000_000:
        return worst
    if worst is Signal.BLIND and state not in BY_CANARY:
        return Signal.FADED
    return Signal.SETTLED if worst in ({Signal.PASSED} if state in BY_CANARY else _GOOD) else worst


def _why(condition: Condition, observed: Sequence[Observed], signal: Signal, state: State) -> str:
    """The words of what leads to the state; a state that merely lasts keeps its reason."""
    wrong = "; ".join(each.words for each in observed if each.signal not in _GOOD)
    if signal is Signal.SETTLED:
        return f"nothing wrong seen for {SETTLE_S[condition.state]} s"
    if signal is Signal.FADED:
        return f"was {condition.state}; {wrong}"
    if next_state(State.HEALTHY, signal) is state:
        return wrong or "; ".join(each.words for each in observed)
    if state is condition.state:
        return condition.why
    waits = f"was {condition.state}; not yet quiet for {SETTLE_S[state]} s"
    return f"{waits}; {wrong}" if wrong else waits
