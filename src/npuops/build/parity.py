"""The parity judge: is what the engine computes what the model means? Pure; `prove` does the running.

Two comparisons are made of every engine. Against the *quantized* graph it must be nearly exact: both
compute the same integers, so a distance is the toolchain's doing. Against *fp32* it may lose what
quantization loses. NaN and infinity never pass, and nothing compared is not a pass either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from npuops.artifacts.evidence import Comparison, OutputParity, Verdict
from npuops.evaluate.metrics import output_parity

FP32 = "fp32"
QUANTIZED = "quantized"
ROWS_ALONE = "rows alone"
"""The same engine with one row at a time: what the rows of a batch must equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one comparison must reach, per output."""

    min_cosine: float
    min_top1_agreement: float
    """Judged only where the output is one vector of classes, and only over at least `min_top1_samples`."""
    min_top1_samples: int = 8
    exact: bool = False
    """Every number must be equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityLimits:
    """Limits for each reference. The defaults come from facts/toolchains.md, sections 1.1 and 6.

    There, healthy builds of trained models reach cosine 0.9984 and more against fp32 and 0.9995 and more
    against the quantized graph, and silently wrong ones 0.84 and less.
    """

    quantized: Limits = Limits(min_cosine=0.98, min_top1_agreement=0.9)
    fp32: Limits = Limits(min_cosine=0.95, min_top1_agreement=0.9)
    same_arithmetic: Limits = Limits(min_cosine=1.0, min_top1_agreement=1.0, exact=True)
    """Between two reference implementations of one integer graph."""
    nearly_same_arithmetic: Limits = Limits(min_cosine=0.999, min_top1_agreement=0.98)
    """The same, where an operator is known that the two round differently by one level."""

    rows_alone: Limits = Limits(min_cosine=0.9999, min_top1_agreement=0.0)
    """Other kernels sum in another order, and a quantizer may then round to the next level. Rows that were mixed up
    are far below."""

    def without_top1(self) -> ParityLimits:
        """The same, for outputs that are no classes."""
        return replace(
            self,
            quantized=replace(self.quantized, min_top1_agreement=0.0),
            fp32=replace(self.fp32, min_top1_agreement=0.0),
        )

    def of(self, reference: str) -> Limits:
        """The limits for a comparison against `reference`."""
        known = {FP32: self.fp32, QUANTIZED: self.quantized, ROWS_ALONE: self.rows_alone}
        return known.get(reference, self.same_arithmetic)


def compare(
    engine: str, basis: str, reference: str, got: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]]
) -> Comparison:
    """Figures for every output that the reference has.

    Args:
        engine: who is judged.
        basis: what executed it.
        reference: `fp32`, `quantized`, `rows alone`, or another engine.
        got: output name → array [samples, …].
        wanted: the same of the reference.

    Raises:
        ValueError: an output is missing or has another shape.
    """
    missing = sorted(set(wanted) - set(got))
    if missing:
        raise ValueError(f"{engine} gives no output {', '.join(missing)}")
    samples = len(next(iter(wanted.values()))) if wanted else 0
    outputs = tuple(output_parity(name, got[name], array) for name, array in wanted.items())
    return Comparison(engine=engine, basis=basis, reference=reference, samples=samples, outputs=outputs)


def judge(comparisons: tuple[Comparison, ...], limits: ParityLimits) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict over all comparisons, and a sentence for each limit that is not met."""
    if not comparisons or any(comparison.samples == 0 for comparison in comparisons):
        return Verdict.INCONCLUSIVE, ("nothing was compared: there were no evaluation samples or no engine",)
    reasons = tuple(
        f"{comparison.engine} against {comparison.reference}, output {output.output!r}: {what}"
        for comparison in comparisons
        for output in comparison.outputs
        for what in _broken(output, comparison.samples, limits.of(comparison.reference))
    )
    return (Verdict.FAIL if reasons else Verdict.PASS), reasons


def _broken(output: OutputParity, samples: int, limits: Limits) -> list[str]:
    if not output.finite:
        return ["NaN or infinity"]
    if limits.exact:
        return [] if output.max_abs == 0 else [f"not equal, largest difference {output.max_abs:.6g}"]
    found: list[str] = []
    if output.cosine is None:
        found.append("cosine is undefined: all zeros on one side")
    elif output.cosine < limits.min_cosine:
        found.append(f"cosine {output.cosine:.4f}, wanted at least {limits.min_cosine:g}")
    top1 = output.top1_agreement
    if top1 is not None and samples >= limits.min_top1_samples and top1 < limits.min_top1_agreement:
        found.append(f"top-1 agrees on {top1:.1%} of {samples} samples, wanted {limits.min_top1_agreement:.0%}")
    return found
