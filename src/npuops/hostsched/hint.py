"""What an application says of its own tasks: the kernel cannot know that somebody waits for an answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a task is for."""

    LATENCY = "latency"
    """Somebody waits for its answers."""
    BATCH = "batch"
    """Its throughput counts."""
    BACKGROUND = "background"
    """Nobody waits, however often it wakes."""


@dataclass(frozen=True, slots=True)
class Hint:
    """The last word of an application on one task, as it counts at one moment.

    Attributes:
        at_us: when it was heard, monotonic.
        kind: what the task is for; None if not said.
        slo_us: answers should take no longer; None without one.
        slack_us: time left to the most urgent request now, not when it was heard, negative when it is late; None if not
            said, or too long ago.
        queued: requests that wait or are worked on; None as above.
        served: answers so far, since the application began to count.
        missed: of these, those later than the SLO.
    """

    at_us: int
    kind: Kind | None = None
    slo_us: int | None = None
    slack_us: int | None = None
    queued: int | None = None
    served: int = 0
    missed: int = 0
