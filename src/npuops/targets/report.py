"""The answer to "will this model run there?": placement, fit, latency and energy, with reasons."""

from __future__ import annotations

from dataclasses import dataclass

from npuops.models.placement import PlacementReport
from npuops.units import Energy, Latency

SCHEMA = "npuops.check/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Whether weights and the peak of activations fit the device; `limit_bytes` None: no fixed limit."""

    ok: bool
    weights_bytes: int
    peak_activation_bytes: int | None
    limit_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Something to change in the model, and how.

    `pattern` names a known-bad pattern; `fix` names the rewrite that `--fix` applies, or is empty.
    """

    pattern: str
    nodes: tuple[str, ...]
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupportReport:
    """What `npuops check` answers; its JSON form is a contract (docs/check.md)."""

    schema: str = SCHEMA
    model: str
    target: str
    placement: PlacementReport
    fits: Fit
    latency: Latency | None
    energy: Energy | None
    advice: tuple[Advice, ...] = ()
