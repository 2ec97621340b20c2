"""The latencies that a manifest knows, each with its basis; figures of different bases are never compared."""

from __future__ import annotations

import math
from dataclasses import dataclass

from npuops.artifacts.manifest import Manifest
from npuops.units import Basis, format_us


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyFigure:
    """One inference, in microseconds."""

    us: float
    basis: Basis
    source: str

    def __str__(self) -> str:
        return f"{format_us(self.us)} ({self.basis})"


def latency_figures(manifest: Manifest) -> tuple[LatencyFigure, ...]:
    """The compiler's own estimate (note `inference_us`), and the median run of the parity step."""
    found: list[LatencyFigure] = []
    estimate = _positive(manifest.compile.notes.get("inference_us"))
    if estimate is not None:
        source = f"the compiler of {manifest.target}"
        found.append(LatencyFigure(us=estimate, basis=Basis.VENDOR_ESTIMATE, source=source))
    parity = manifest.parity
    if parity is not None and parity.run_us is not None and parity.run_basis in set(Basis):
        where = "by the device's model" if parity.run_basis == Basis.MODELLED else "on the build host"
        source = f"median of the parity runs, {where}"
        found.append(LatencyFigure(us=parity.run_us, basis=Basis(parity.run_basis), source=source))
    return tuple(found)


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None  # a note is a vendor's text; one that is no number is no figure
    return value if math.isfinite(value) and value > 0 else None
