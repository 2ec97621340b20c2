"""The answer to "will this model run there?": placement, fit, latency and energy, with reasons."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from npuops.models.model import Model
from npuops.models.placement import Placement, PlacementReport, placement_report
from npuops.units import Energy, Latency

SCHEMA = "npuops.check/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """What a model would take of one memory: `what` is weights or activations, `where` chip memory, DRAM or flash."""

    what: str
    where: str
    bytes: int
    limit_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Whether weights and the peak of activations fit the device; `limit_bytes` None: no fixed limit.

    Attributes:
        note: why it does not fit, where the target knows more than the sum; or what is not counted.
        uses: where weights and activations would live; empty where the target does not know.
    """

    ok: bool
    weights_bytes: int
    peak_activation_bytes: int | None
    limit_bytes: int | None
    note: str = ""
    uses: tuple[MemoryUse, ...] = ()


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


def support_report(
    target: str,
    model: Model,
    nodes: Iterable[Placement],
    *,
    limit_bytes: int | None = None,
    advice: tuple[Advice, ...] = (),
) -> SupportReport:
    """The report of a target that has no figure for latency and energy.

    Args:
        target: its full name.
        model: what was judged.
        nodes: where each layer runs, in the order of `model.layers`.
        limit_bytes: of the memory that weights and activations share; None where there is no fixed limit.
        advice: what the target itself found.
    """
    need = model.weight_bytes + (model.peak_activation_bytes or 0)
    return SupportReport(
        model=model.path.name,
        target=target,
        placement=placement_report(model, nodes),
        fits=Fit(
            ok=limit_bytes is None or need <= limit_bytes,
            weights_bytes=model.weight_bytes,
            peak_activation_bytes=model.peak_activation_bytes,
            limit_bytes=limit_bytes,
        ),
        latency=None,
        energy=None,
        advice=advice,
    )
