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
    """At or above the critical temperature."""
    WRONG = "wrong"
    """The canary inference answered wrong."""
    HANG = "hang"
    OFFLINE = "offline"
    ABSENT = "absent"


_RANK: Final[Mapping[Signal, int]] = {signal: rank for rank, signal in enumerate(Signal)}
_GOOD: Final = frozenset({Signal.PASSED, Signal.QUIET})

TABLE: Final = """
state        settled  quiet        blind        passed      corrected    throttling   reset      uncorrected  tripped     wrong  hang  offline  absent
unknown      -        healthy      unknown      healthy     correcting   throttled    resetting  uncorrected  overheated  wrong  hung  offline  gone
healthy      -        healthy      unknown      healthy     correcting   throttled    resetting  uncorrected  overheated  wrong  hung  offline  gone
correcting   healthy  correcting   unknown      correcting  correcting   throttled    resetting  uncorrected  overheated  wrong  hung  offline  gone
throttled    healthy  throttled    unknown      throttled   throttled    throttled    resetting  uncorrected  overheated  wrong  hung  offline  gone
resetting    healthy  resetting    unknown      healthy     resetting    resetting    resetting  uncorrected  overheated  wrong  hung  offline  gone
uncorrected  healthy  uncorrected  uncorrected  healthy     uncorrected  uncorrected  resetting  uncorrected  overheated  wrong  hung  offline  gone
overheated   -        throttled    overheated   throttled   throttled    throttled    resetting  uncorrected  overheated  wrong  hung  offline  gone
hung         -        hung         hung         healthy     hung         hung         resetting  hung         hung        wrong  hung  offline  gone
wrong        -        wrong        wrong        healthy     wrong        wrong        wrong      wrong        wrong       wrong  hung  offline  gone
offline      -        resetting    offline      healthy     resetting    resetting    resetting  uncorrected  overheated  wrong  hung  offline  gone
gone         -        resetting    unknown      healthy     resetting    resetting    resetting  uncorrected  overheated  wrong  hung  offline  gone
"""  # noqa: E501 - a matrix is read by its columns
"""`-`: no such pair. A device that comes back is `resetting` until it has been quiet; a device that answered wrong is
cured by a canary that passes and by nothing else that leaves it running."""


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
}
"""How long a state wants nothing wrong to be seen before it is left as `settled`."""

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
    worst = max(observed, key=lambda each: _RANK[each.signal])
    good = worst.signal in _GOOD
    quiet_since_us = (now_us if condition.quiet_since_us is None else condition.quiet_since_us) if good else None
    signal, words = worst.signal, "; ".join(each.words for each in observed if each.signal not in _GOOD)
    wanted_s = SETTLE_S.get(condition.state)
    if quiet_since_us is not None and wanted_s is not None and now_us - quiet_since_us >= wanted_s * 1_000_000:
        signal, words = Signal.SETTLED, f"nothing wrong seen for {wanted_s} s"
    state = next_state(condition.state, signal)
    stays = state is condition.state
    if good and stays and state is not State.HEALTHY:
        words = condition.why
    elif good and not words and state in SETTLE_S:
        words = f"was {condition.state}; not yet quiet for {SETTLE_S[state]} s"
    return Condition(
        state=state,
        why=words or worst.words,
        since_us=condition.since_us if stays else now_us,
        quiet_since_us=quiet_since_us,
    )
