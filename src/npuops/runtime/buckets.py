"""The artifacts of a model on one device as buckets: which shapes each takes, and what filling a request up wastes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from npuops.errors import OptionError
from npuops.runtime.batch_curve import BatchCurve, stepped
from npuops.runtime.signature import Form, Shape

_FREE: Final = -1


@dataclass(frozen=True, slots=True)
class Bucket:
    """What one artifact takes.

    Attributes:
        index: of the artifact.
        rows: along the batch axis, always that many; None where it takes any number, or has no batch axis.
        shapes: of each input without its batch axis, as `Form.key` has them; -1 where a size is free, None where not
            even the rank is known.
    """

    index: int
    rows: int | None
    shapes: tuple[Shape | None, ...]


@dataclass(frozen=True, slots=True)
class Crop:
    """An axis of an output that is as long as an axis of an input, and is cut back with it.

    Attributes:
        output, input: their index.
        axis, input_axis: counted in whole shapes, with the batch axis.
    """

    output: int
    axis: int
    input: int
    input_axis: int


@dataclass(frozen=True, slots=True)
class AxisPadding:
    """Leave to fill a request up along other axes than that of the batch. Only the model's owner can give it.

    Attributes:
        values: of each input, what it is filled up with; None where it must not be.
        crops: what is cut off the outputs afterwards.
    """

    values: tuple[float | None, ...] = ()
    crops: tuple[Crop, ...] = ()


NO_PADDING: Final = AxisPadding()


def choose(buckets: Sequence[Bucket], form: Form, rows: int, padding: AxisPadding = NO_PADDING) -> Bucket | None:
    """The bucket that computes least for nothing; the first of equals, None where none takes it.

    Args:
        buckets: of one device.
        form: of the requests; all of a run have the same key.
        rows: of all of them.
        padding: what may be filled up besides rows.
    """
    best: Bucket | None = None
    least = 0
    for bucket in buckets:
        if bucket.rows is not None and bucket.rows < rows:
            continue
        elements = _elements(bucket, form, padding)
        if elements is None:
            continue
        computed = (rows if bucket.rows is None else bucket.rows) * elements
        if best is None or computed < least:
            best, least = bucket, computed
    return best


def padding(rows: int, bucket: Bucket) -> int:
    """Rows that a run computes for nothing."""
    return 0 if bucket.rows is None else bucket.rows - rows


def filled_shapes(bucket: Bucket, form: Form) -> tuple[Shape, ...]:
    """The shape of each input as the artifact gets it, without the batch axis: free sizes are the request's."""
    return tuple(
        given
        if wanted is None
        else tuple(size if want == _FREE else want for want, size in zip(wanted, given, strict=True))
        for wanted, given in zip(bucket.shapes, form.key, strict=True)
    )


def cropped_shapes(shapes: Sequence[Shape], form: Form, padding: AxisPadding) -> tuple[Shape, ...]:
    """The shape of each output as the client gets it.

    Args:
        shapes: as the artifact gave them, rows of the batch already right.
        form: of the request.
        padding: with which it was filled up.
    """
    cut = [list(shape) for shape in shapes]
    for crop in padding.crops:
        axes = cut[crop.output]
        axes[crop.axis] = min(axes[crop.axis], form.shapes[crop.input][crop.input_axis])
    return tuple(tuple(axes) for axes in cut)


def check_padding(padding: AxisPadding, input_ranks: Sequence[int | None], output_ranks: Sequence[int | None]) -> None:
    """Every crop names axes that exist.

    Raises:
        OptionError: one does not.
    """
    for crop in padding.crops:
        for word, index, axis, ranks in (
            ("output", crop.output, crop.axis, output_ranks),
            ("input", crop.input, crop.input_axis, input_ranks),
        ):
            rank = ranks[index] if 0 <= index < len(ranks) else 0
            if rank is not None and not 0 <= axis < rank:
                raise OptionError(f"padding: {word} {index} has no axis {axis}", advice="axes count from 0")


def curve_over(
    buckets: Sequence[Bucket], curves: Sequence[BatchCurve], form: Form, padding: AxisPadding = NO_PADDING
) -> BatchCurve:
    """How long runs of these shapes take on a device, whatever artifact they go to. Worth keeping for each `form.key`.

    The curve of the artifact that `choose` takes for one row alone says nothing about batches: another one may be for
    them.

    Args:
        buckets: of the device.
        curves: of each artifact, by its index.
        form: of the requests; its own rows do not matter.
        padding: what may be filled up besides rows.
    """
    fitting = [bucket for bucket in buckets if _elements(bucket, form, padding) is not None]
    free = choose([bucket for bucket in fitting if bucket.rows is None], form, 1, padding)
    if free is not None:
        return curves[free.index]
    times: dict[int, float] = {}
    for rows in {bucket.rows for bucket in fitting if bucket.rows is not None}:
        chosen = choose(fitting, form, rows, padding)
        if chosen is not None:
            times[rows] = curves[chosen.index].us(rows)
    return stepped(times)


def _elements(bucket: Bucket, form: Form, padding: AxisPadding) -> int | None:
    """Elements of one row that are computed; None where it does not fit."""
    if bucket.shapes == form.key:
        return sum(map(prod, form.key))
    total = 0
    for index, (wanted, given) in enumerate(zip(bucket.shapes, form.key, strict=True)):
        if wanted is None:
            total += prod(given)
            continue
        if len(wanted) != len(given):
            return None
        may_fill = index < len(padding.values) and padding.values[index] is not None
        elements = 1
        for want, size in zip(wanted, given, strict=True):
            if want not in {_FREE, size} and not (may_fill and size < want):
                return None
            elements *= size if want == _FREE else want
        total += elements
    return total
