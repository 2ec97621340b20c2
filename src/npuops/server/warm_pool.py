"""Which loaded models leave memory: those that nobody asked for in a while, and the oldest when room is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

BACK_OFF_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""How long a cold model that failed to load is left alone: a herd of requests must not load it once each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """One model in memory, over all its versions.

    Attributes:
        name: of the model.
        in_flight: requests that it has not answered yet, those waiting included.
        last_used_us: end of its load, or its last request.
        keep_alive_s: as its options say.
        busy: a version of it is being loaded or closed.
    """

    name: str
    in_flight: int
    last_used_us: int
    keep_alive_s: float | None
    busy: bool = False

    @property
    def idle(self) -> bool:
        """Closing it interrupts nobody."""
        return not self.in_flight and not self.busy


def expired(models: Sequence[LoadedModel], now_us: int) -> list[str]:
    """Names of the idle models that were not used for longer than they are kept."""
    return [
        model.name
        for model in models
        if model.idle and model.keep_alive_s is not None and now_us - model.last_used_us >= model.keep_alive_s * 1e6
    ]


def victim(models: Sequence[LoadedModel]) -> str | None:
    """The idle model that was not used for the longest time; None where every one is at work."""
    idle = [model for model in models if model.idle]
    return min(idle, key=lambda model: (model.last_used_us, model.name)).name if idle else None


def back_off_s(failures: int) -> float:
    """Seconds until a cold model may be tried again after so many failures in a row (at least one)."""
    return BACK_OFF_S[min(failures, len(BACK_OFF_S)) - 1]
