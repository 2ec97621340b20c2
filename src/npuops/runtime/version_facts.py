"""What is reported when a version of a model is loaded, replaced, put to rest or closed."""

from __future__ import annotations

from dataclasses import dataclass

from npuops.runtime.facts import ModelFact


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionChanged(ModelFact):
    """A version went from one state to another, or stayed where it was because its replacement failed.

    Attributes:
        state: `UNAVAILABLE`, `COLD`, `LOADING`, `READY` or `UNLOADING`.
        event: what happened to it: `load`, `loaded`, `failed`, `cancelled`, `rest`, `unload`, `closed`.
        reason: in words; "" where the event says it all.
        seconds: what a load (or its failure), or the end of a version, took; None for other events.
        waiting: requests that waited for it.
    """

    state: str
    event: str
    reason: str
    seconds: float | None
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionStandsIn(ModelFact):
    """None of the versions that are wanted comes up, so that an older one is served in their place.

    Attributes:
        instead_of: the versions that do not come up, by number.
    """

    instead_of: tuple[str, ...]
