"""The life of one version of one model, as a table; docs/serving.md draws it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class ModelState(StrEnum):
    """What a version is doing. The words of the repository extension, and `COLD`."""

    UNAVAILABLE = "UNAVAILABLE"
    """Not loaded, and no request loads it."""
    COLD = "COLD"
    """Not loaded; the next request loads it. To clients of the protocol it is READY."""
    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    """Gets no new request; those that it has are answered."""


class LifeEvent(StrEnum):
    """What happens to a version."""

    LOAD = "load"
    """Somebody wants it in memory: the policy, a client, or a request to a cold model."""
    LOADED = "loaded"
    """It is warm: also the replacement of one that is ready, which changes nothing outside."""
    FAILED = "failed"
    """It did not come up."""
    CANCELLED = "cancelled"
    """It is not wanted any more, before it came up."""
    REST = "rest"
    """It may be loaded, but not now: there is no room, or no need."""
    UNLOAD = "unload"
    CLOSED = "closed"
    """Its processes are gone, and its memory is given back."""


_U, _C, _L, _R, _G = (
    ModelState.UNAVAILABLE,
    ModelState.COLD,
    ModelState.LOADING,
    ModelState.READY,
    ModelState.UNLOADING,
)

NEXT: Final[dict[tuple[ModelState, LifeEvent], ModelState]] = {
    (_U, LifeEvent.LOAD): _L,
    (_U, LifeEvent.REST): _C,
    (_C, LifeEvent.LOAD): _L,
    (_C, LifeEvent.UNLOAD): _U,
    (_L, LifeEvent.LOADED): _R,
    (_L, LifeEvent.FAILED): _U,
    (_L, LifeEvent.CANCELLED): _U,
    (_R, LifeEvent.LOADED): _R,
    (_R, LifeEvent.FAILED): _R,  # a replacement failed: the old one answers on
    (_R, LifeEvent.UNLOAD): _G,
    (_G, LifeEvent.CLOSED): _U,
}


class ImpossibleEventError(Exception):
    """A pair that the table does not have: a defect of npuops, nothing that a user can cause."""


def next_state(state: ModelState, event: LifeEvent) -> ModelState:
    """Where the event leads.

    Raises:
        ImpossibleEventError: the table has no such pair; nothing happened.
    """
    try:
        return NEXT[state, event]
    except KeyError:
        raise ImpossibleEventError(f"{event} cannot happen to a version that is {state}") from None


def diagram() -> str:
    """The table in the words of Mermaid, one line an arrow."""
    arrows = (f"    {state} --> {to}: {event}" for (state, event), to in NEXT.items())
    return "\n".join(["stateDiagram-v2", "    [*] --> UNAVAILABLE", *arrows])
