"""The one figure that a line of a table has room for: an artifact's worst against the fp32 model."""

from __future__ import annotations

from collections.abc import Callable

from npuops.artifacts.evidence import OutputParity
from npuops.artifacts.manifest import Manifest
from npuops.build.parity import FP32


def worst_cosine(manifest: Manifest) -> float | None:
    """The lowest over all outputs and engines; None where there is none, or where an output is not finite."""
    return _worst(manifest, lambda output: output.cosine)


def worst_agreement(manifest: Manifest) -> float | None:
    """Like `worst_cosine`, of the top-1 agreement."""
    return _worst(manifest, lambda output: output.top1_agreement)


def _worst(manifest: Manifest, figure: Callable[[OutputParity], float | None]) -> float | None:
    comparisons = manifest.parity.comparisons if manifest.parity else ()
    outputs = [output for one in comparisons if one.reference == FP32 for output in one.outputs]
    figures = [found for found in map(figure, outputs) if found is not None]
    # The others would look well beside an output that is NaN.
    return min(figures) if figures and all(output.finite for output in outputs) else None
