"""Two artifacts side by side: what differs, which is better where better has a meaning, what cannot be compared.

Figures are compared only where they mean the same: latencies of one basis, accuracies of one metric, parities of one
source model against one reference. Everything else is shown, and marked as not comparable with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from npuops.artifacts.evidence import OutputParity
from npuops.artifacts.latency_figures import LatencyFigure, latency_figures
from npuops.artifacts.manifest import Manifest
from npuops.build.gate import compiled_bytes
from npuops.build.parity import FP32, QUANTIZED
from npuops.models.model import TensorInfo
from npuops.units import format_bytes

SCHEMA = "npuops.compare/1"
ABSENT = "–"


class Mark(StrEnum):
    """The second artifact, seen from the first."""

    SAME = "same"
    BETTER = "better"
    WORSE = "worse"
    DIFFERENT = "different"
    """Neither is better: a name, a version."""
    NOT_COMPARABLE = "not-comparable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One property of both."""

    group: str
    name: str
    a: str
    b: str
    mark: Mark
    note: str = ""
    """The change, or why there is no comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """The answer of `npuops compare`, and its JSON."""

    schema: str = SCHEMA
    a: str
    b: str
    rows: tuple[Row, ...]


def compare_artifacts(a: Manifest, b: Manifest, *, name_a: str, name_b: str) -> SideBySide:
    """In groups: identity, build, placement, parity, accuracy, size, latency, toolchain, verdict.

    What neither of them has gets no row.
    """
    rows = (
        *_identity(a, b),
        *_build(a, b),
        *_placement(a, b),
        *_parity(a, b),
        *_accuracy(a, b),
        _size(a, b),
        *_latency(a, b),
        *_toolchain(a, b),
        *_verdicts(a, b),
    )
    return SideBySide(a=name_a, b=name_b, rows=tuple(row for row in rows if (row.a, row.b) != (ABSENT, ABSENT)))


def tensor_words(tensor: TensorInfo) -> str:
    """`image float32[1×28×28]`."""
    dims = "?" if tensor.shape is None else "×".join("?" if dim is None else str(dim) for dim in tensor.shape)
    return f"{tensor.name} {tensor.dtype}[{dims}]"


def _text(group: str, name: str, a: object, b: object) -> Row:
    left, right = (ABSENT if value is None or value == "" else str(value) for value in (a, b))
    return Row(group=group, name=name, a=left, b=right, mark=Mark.SAME if left == right else Mark.DIFFERENT)


def _figure(
    group: str,
    name: str,
    a: float | None,
    b: float | None,
    *,
    low_is_good: bool,
    as_bytes: bool = False,
    as_percent: bool = False,
    why_not: str = "",
) -> Row:
    left, right = (_number(value, as_bytes=as_bytes) for value in (a, b))
    if a is None and b is None:
        return Row(group=group, name=name, a=left, b=right, mark=Mark.SAME)
    if why_not or a is None or b is None:
        note = why_not or "only one of them has it"
        return Row(group=group, name=name, a=left, b=right, mark=Mark.NOT_COMPARABLE, note=note)
    if a == b:
        return Row(group=group, name=name, a=left, b=right, mark=Mark.SAME)
    better = (b < a) == low_is_good
    note = f"{(b - a) / abs(a):+.1%}" if as_percent and a else f"{b - a:+.4g}"
    return Row(group=group, name=name, a=left, b=right, mark=Mark.BETTER if better else Mark.WORSE, note=note)


def _number(value: float | None, *, as_bytes: bool) -> str:
    if value is None:
        return ABSENT
    return format_bytes(int(value)) if as_bytes else f"{value:.6g}"


def _identity(a: Manifest, b: Manifest) -> Iterable[Row]:
    yield _text("identity", "model", a.model.name, b.model.name)
    yield _text("identity", "model digest", a.model.digest, b.model.digest)
    yield _text("identity", "artifact digest", a.digest, b.digest)
    yield _text("identity", "inputs", _tensors(a.inputs), _tensors(b.inputs))
    yield _text("identity", "outputs", _tensors(a.outputs), _tensors(b.outputs))


def _build(a: Manifest, b: Manifest) -> Iterable[Row]:
    yield _text("build", "target", a.target, b.target)
    yield _text("build", "precision", a.precision, b.precision)
    left, right = a.quantization, b.quantization
    yield _text("build", "calibration", left and left.method, right and right.method)
    yield _text("build", "calibration samples", left and left.calibration_samples, right and right.calibration_samples)
    sixteen = [None if quantization is None else len(quantization.tensors_16bit) for quantization in (left, right)]
    yield _text("build", "16-bit tensors", *sixteen)
    for option in sorted({*a.compile.vendor_options, *b.compile.vendor_options}):
        yield _text("build", option, a.compile.vendor_options.get(option), b.compile.vendor_options.get(option))


def _placement(a: Manifest, b: Manifest) -> Iterable[Row]:
    left, right = a.placement, b.placement
    # The vendor's names for nodes differ from target to target, but the ratios mean the same on all.
    yield _figure("placement", "fallback by ops", left.fallback_ratio.ops, right.fallback_ratio.ops, low_is_good=True)
    yield _figure(
        "placement", "fallback by MACs", left.fallback_ratio.macs, right.fallback_ratio.macs, low_is_good=True
    )
    yield _text("placement", "nodes", len(left.nodes), len(right.nodes))


_PARITY_FIGURES: Final[tuple[tuple[str, Callable[[OutputParity], float | None], bool], ...]] = (
    ("cosine", lambda output: output.cosine, False),
    ("SQNR dB", lambda output: output.sqnr_db, False),
    ("top-1 agreement", lambda output: output.top1_agreement, False),
    ("max abs", lambda output: output.max_abs, True),
)
"""Name, value, and whether low is good."""


def _parity(a: Manifest, b: Manifest) -> Iterable[Row]:
    left, right = _outputs(a), _outputs(b)
    why_not = "" if a.model.digest == b.model.digest else "different source models"
    for key in sorted({*left, *right}):
        one, two = left.get(key), right.get(key)
        for figure, value, low_is_good in _PARITY_FIGURES:
            x, y = (value(output) if output else None for output in (one, two))
            if x is not None or y is not None:
                reason = why_not or _equal_outputs(figure, one, two)
                name = f"{key[1]} against {key[0]}: {figure}"
                yield _figure("parity", name, x, y, low_is_good=low_is_good, why_not=reason)


def _equal_outputs(figure: str, one: OutputParity | None, two: OutputParity | None) -> str:
    """Outputs that equal the reference have no SQNR; their max abs row tells which side is better."""
    if figure != "SQNR dB" or one is None or two is None or (one.sqnr_db is None) == (two.sqnr_db is None):
        return ""
    exact = one if one.sqnr_db is None else two
    return "equal to the reference on one side" if exact.finite else "not finite on one side"


def _outputs(manifest: Manifest) -> dict[tuple[str, str], OutputParity]:
    """(reference, output) → figures; of several engines the first, which is the one that executes.

    A comparison between two engines of one target (two reference implementations) has no counterpart elsewhere.
    """
    found: dict[tuple[str, str], OutputParity] = {}
    for comparison in manifest.parity.comparisons if manifest.parity else ():
        for output in comparison.outputs if comparison.reference in {FP32, QUANTIZED} else ():
            found.setdefault((comparison.reference, output.output), output)
    return found


def _accuracy(a: Manifest, b: Manifest) -> Iterable[Row]:
    left, right = a.accuracy, b.accuracy
    if left is None and right is None:
        return
    if left is None or right is None or left.metric != right.metric:
        names = [found.metric if found else "none measured" for found in (left, right)]
        yield Row(group="accuracy", name="metric", a=names[0], b=names[1], mark=Mark.NOT_COMPARABLE, note="two metrics")
        return
    same = "" if left.samples == right.samples else f"{left.samples} against {right.samples} samples"
    yield _figure("accuracy", left.metric, left.artifact, right.artifact, low_is_good=False, why_not=same)
    yield _figure("accuracy", f"{left.metric} drop", left.drop, right.drop, low_is_good=True, why_not=same)


def _size(a: Manifest, b: Manifest) -> Row:
    left, right = compiled_bytes(a), compiled_bytes(b)
    return _figure("size", "compiled files", left, right, low_is_good=True, as_bytes=True, as_percent=True)


def _latency(a: Manifest, b: Manifest) -> Iterable[Row]:
    left, right = latency_figures(a), latency_figures(b)
    shared = {figure.basis for figure in left} & {figure.basis for figure in right}
    for basis in sorted(shared):
        one, two = _of(left, basis), _of(right, basis)
        yield _figure("latency", f"µs ({basis})", one.us, two.us, low_is_good=True, as_percent=True)
    if not shared and (left or right):
        bases = [" and ".join(figure.basis for figure in figures) or "no figure" for figures in (left, right)]
        yield Row(
            group="latency",
            name="one inference",
            a=", ".join(map(str, left)) or ABSENT,
            b=", ".join(map(str, right)) or ABSENT,
            mark=Mark.NOT_COMPARABLE,
            note=f"not comparable: {bases[0]} vs {bases[1]}",
        )


def _of(figures: tuple[LatencyFigure, ...], basis: str) -> LatencyFigure:
    return next(figure for figure in figures if figure.basis == basis)


def _toolchain(a: Manifest, b: Manifest) -> Iterable[Row]:
    yield _text("toolchain", "written by npuops", a.npuops, b.npuops)
    for package in sorted({*a.toolchain, *b.toolchain}):
        yield _text("toolchain", package, a.toolchain.get(package), b.toolchain.get(package))
    yield _text("toolchain", "compatibility", a.compatibility, b.compatibility)


def _verdicts(a: Manifest, b: Manifest) -> Iterable[Row]:
    yield _text("verdict", "parity", a.parity and a.parity.verdict, b.parity and b.parity.verdict)
    yield _text("verdict", "gate", a.gate and a.gate.verdict, b.gate and b.gate.verdict)


def _tensors(tensors: Iterable[TensorInfo]) -> str:
    return ", ".join(tensor_words(tensor) for tensor in tensors)
