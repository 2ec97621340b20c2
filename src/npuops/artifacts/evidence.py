"""What was proved about an artifact: comparisons, accuracy, and the verdict of a gate."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The four answers of every judge in npuops."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputParity:
    """One output tensor over all evaluation samples, against a reference."""

    output: str
    cosine: float | None
    """Mean cosine similarity of a sample's flattened output; None where a norm is zero on one side."""
    sqnr_db: float | None
    """10·log10(Σ reference² / Σ difference²) over all samples; None where the two are equal."""
    max_abs: float | None
    """Largest absolute difference; None where a value is not finite."""
    top1_agreement: float | None
    """Share of samples whose argmax over the last axis agrees; None where the output has no classes."""
    finite: bool
    """No NaN and no infinity, on either side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Outputs of one engine against another on the same inputs."""

    engine: str
    """Who was judged, for example `qnn-htp:sm8650`."""
    basis: str
    """What executed: `emulated`, `measured`, or `reference` for a reference implementation."""
    reference: str
    """`fp32` (the source model) or `quantized` (the quantized graph), both run by ORT on the CPU."""
    samples: int
    outputs: tuple[OutputParity, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """A tensor inside the graph, in topological order, and how far it is from the reference."""

    node: str
    tensor: str
    sqnr_db: float | None
    """None where the two are equal; -200 where NaN or infinity came out instead of a number."""
    cosine: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """All comparisons of one build, and where it went wrong if it did."""

    verdict: Verdict
    comparisons: tuple[Comparison, ...]
    reasons: tuple[str, ...] = ()
    """Why the verdict is not `pass`, one sentence each."""
    first_divergence: tuple[Divergence, ...] = ()
    """On failure: the tensors around the first node that diverges, earliest first."""
    skipped: tuple[str, ...] = ()
    """Engines that could not open the artifact while another ran, with their own words."""
    run_us: float | None = None
    """Median time of one run, by this host's clock or by the model of the device; `run_basis` tells."""
    run_basis: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """A task metric of the artifact and of the fp32 model on the same labelled samples."""

    metric: str
    fp32: float
    artifact: float
    samples: int

    @property
    def drop(self) -> float:
        """Positive when the artifact is worse; metrics are "higher is better"."""
        return self.fp32 - self.artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRule:
    """One rule of a gate: what was wanted, what was found."""

    name: str
    verdict: Verdict
    wanted: str
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """All rules and their common verdict."""

    verdict: Verdict
    rules: tuple[GateRule, ...]


def common_verdict(verdicts: tuple[Verdict, ...]) -> Verdict:
    """The worst wins: error, then fail, then inconclusive; nothing judged is inconclusive."""
    for worst in (Verdict.ERROR, Verdict.FAIL, Verdict.INCONCLUSIVE):
        if worst in verdicts:
            return worst
    return Verdict.PASS if verdicts else Verdict.INCONCLUSIVE
