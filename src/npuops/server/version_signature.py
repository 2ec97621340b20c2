"""Which artifacts may stand for one version, and what they take and give together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from npuops.artifacts.manifest import Manifest
from npuops.errors import DataError, OptionError
from npuops.models.model import Dim, TensorInfo
from npuops.runtime.signature import Port, Signature, port_of
from npuops.runtime.steps import Pictures

DYNAMIC_ROWS: Final = 64
"""Most rows of one run where the artifact names no limit; beyond, a batch gains nothing on the chips that we know."""


def signature_of(manifests: Sequence[Manifest], *, max_rows: int | None = None, free_rows: bool = False) -> Signature:
    """What these artifacts take and give as one version.

    They must agree in names, dtypes and ranks of all tensors, in their order. Shapes may differ:

    - Where the first axis is symbolic in **all** inputs and outputs of one of them, or is one number n within each
      artifact, and another n in another one (buckets), it counts the rows of a batch.
    - A size of any other axis that is not the same everywhere is free (-1): buckets of other shapes.

    A single artifact with a fixed first axis is not batched, even if that is 8, unless `free_rows` says that its rows
    do not know of each other.

    Args:
        manifests: of all artifacts, at least one.
        max_rows: most rows of one run; None takes the largest bucket, or `DYNAMIC_ROWS`.
        free_rows: a fixed first axis counts the rows of a batch.

    Raises:
        DataError: they contradict each other, or carry a dtype that no protocol does.
        OptionError: `free_rows`, and they have no common first axis.
    """
    first = manifests[0]
    for other in manifests[1:]:
        _compare("inputs", first, first.inputs, other, other.inputs)
        _compare("outputs", first, first.outputs, other, other.outputs)
    rows = [rows_of(manifest) for manifest in manifests]
    if free_rows and 0 in rows:
        raise OptionError("[padding] rows: not all inputs and outputs have the same first axis", advice="take it out")
    batched = None in rows or (all(rows) and (len(set(rows)) > 1 or (free_rows and rows != [1])))
    limit = max(count if count else DYNAMIC_ROWS for count in rows) if batched else 1
    return Signature(
        inputs=_ports([manifest.inputs for manifest in manifests], batched=batched),
        outputs=_ports([manifest.outputs for manifest in manifests], batched=batched),
        batched=batched,
        max_rows=_limited(limit, max_rows, dynamic=None in rows) if batched else 1,
    )


def published(manifests: Sequence[Manifest], inside: Signature) -> Signature:
    """As clients see these artifacts: with the steps around the inference, where they have some.

    Args:
        manifests: of all artifacts, at least one.
        inside: of the artifacts themselves (`signature_of`).

    Raises:
        DataError: some have other steps or labels than others.
        OptionError: the steps do not fit the tensors.
    """
    first = manifests[0]
    for other in manifests[1:]:
        if other.pipeline != first.pipeline or (first.pipeline and other.labels != first.labels):
            raise DataError(
                f"its artifacts contradict each other: their pipelines differ ({first.target}, {other.target})",
                advice="build all artifacts of a version with the same --pipeline, --image and --labels",
            )
    return inside if first.pipeline is None else Pictures(first.pipeline, inside, first.labels).signature


def rows_of(manifest: Manifest) -> int | None:
    """Size of the first axis, if it is one for all inputs and outputs: a number, or None for a symbolic one.

    0 where there is no such common axis.
    """
    tensors = (*manifest.inputs, *manifest.outputs)
    if not manifest.inputs or any(not tensor.shape for tensor in tensors):
        return 0
    firsts = [tensor.shape[0] for tensor in tensors if tensor.shape]
    numbers = {dim for dim in firsts if isinstance(dim, int)}
    names = {dim for dim in firsts if isinstance(dim, str)}
    if not numbers:
        return None if len(names) <= 1 else 0
    return numbers.pop() if len(numbers) == 1 and len(firsts) == sum(isinstance(dim, int) for dim in firsts) else 0


def _limited(limit: int, wish: int | None, *, dynamic: bool) -> int:
    """A wish may go beyond `DYNAMIC_ROWS`, but never beyond what static shapes can take."""
    if wish is None:
        return limit
    return wish if dynamic else min(limit, wish)


def _ports(columns: Sequence[Sequence[TensorInfo]], *, batched: bool) -> tuple[Port, ...]:
    return tuple(port_of(_joined(tensors), batched=batched) for tensors in zip(*columns, strict=True))


def _joined(tensors: Sequence[TensorInfo]) -> TensorInfo:
    shapes = [tensor.shape for tensor in tensors if tensor.shape is not None]
    if len(shapes) < len(tensors):
        return replace(tensors[0], shape=None)
    return replace(tensors[0], shape=tuple(_same(dims) for dims in zip(*shapes, strict=True)))


def _same(dims: Sequence[Dim]) -> Dim:
    return dims[0] if all(left == right for left, right in pairwise(dims)) else None


def _compare(
    kind: str, first: Manifest, tensors: Sequence[TensorInfo], other: Manifest, others: Sequence[TensorInfo]
) -> None:
    one, two = ([_words(tensor) for tensor in side] for side in (tensors, others))
    if one == two:
        return
    raise DataError(
        f"its artifacts contradict each other: {kind} {', '.join(one)} ({first.target}) and {', '.join(two)}"
        f" ({other.target})",
        advice="artifacts of one version have tensors of the same names, dtypes and ranks, in the same order; "
        "put others into a version or a model of their own",
    )


def _words(tensor: TensorInfo) -> str:
    rank = "any rank" if tensor.shape is None else f"rank {len(tensor.shape)}"
    return f"{tensor.name!r} {tensor.dtype} {rank}"
