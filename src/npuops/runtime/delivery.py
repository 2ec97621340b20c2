"""The outputs of a run, cut into what each of its requests gets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError, NpuopsError, OptionError, RunError
from npuops.runtime.buckets import AxisPadding, cropped_shapes
from npuops.runtime.bytes_tensor import end_of
from npuops.runtime.doorbell import Place
from npuops.runtime.gathering import CARRIERS
from npuops.runtime.job import Bytes, Completion, Job
from npuops.runtime.replica import Answer, Run
from npuops.runtime.signature import Port, Shape, Signature

_SHAPES_KEPT: Final = 1024
_log: Final = logging.getLogger(__name__)


class Delivery:
    """Hands out completions; remembers the shapes of answers, which are the same most of the time."""

    def __init__(self, signature: Signature, padding: AxisPadding) -> None:
        """Of one model version.

        Raises:
            OptionError: a crop of text, which has no axes in memory.
        """
        for crop in padding.crops:
            if signature.outputs[crop.output].dtype == "string":
                raise OptionError(f"padding.crop: {signature.outputs[crop.output].name!r} is text and cannot be cut")
        self._batched = signature.batched
        self._outputs, self._padding = signature.outputs, padding
        self._texts = any(port.dtype == "string" for port in signature.outputs)
        self._shapes: dict[tuple[bytes, int], tuple[Shape, ...]] = {}

    def hand_out(self, run: Run, answer: Answer, view: memoryview, device: str, *, fell_back: bool) -> None:
        """Call the receiver of every request that is still wanted.

        Args:
            run: its requests, in the order of their rows.
            answer: where the outputs lie.
            view: the memory that their places refer to.
            device: that ran it.
            fell_back: it is the fallback.
        """
        jobs, places, tensors = run.jobs, answer.places, answer.tensors
        if run.filled is None and (run.padded == jobs[0].form.rows or not self._batched):
            whole: list[Bytes] = [view[place.offset : place.offset + place.size] for place in places]
            give(jobs[0], Completion(whole, self._shapes_of(places, tensors, run.padded), device, fell_back=fell_back))
            return
        if run.filled is not None or self._texts:
            for job, row in zip(jobs, _first_rows(jobs), strict=True):
                if not job.cancelled:
                    self._give_cut(job, row, places, view, device, fell_back)
            return
        steps = [(place.offset, place.size // run.padded) for place in places]
        row = rows = 0
        shapes: tuple[Shape, ...] = ()
        for job in jobs:
            if job.form.rows != rows:
                rows = job.form.rows
                shapes = self._shapes_of(places, tensors, rows)
            if not job.cancelled:
                parts = [view[offset + row * step : offset + (row + rows) * step] for offset, step in steps]
                give(job, Completion(parts, shapes, device, fell_back=fell_back))
            row += rows

    def _shapes_of(self, places: tuple[Place, ...], tensors: bytes, rows: int) -> tuple[Shape, ...]:
        found = self._shapes.get((tensors, rows))
        if found is None:
            if len(self._shapes) >= _SHAPES_KEPT:
                self._shapes.clear()
            found = self._cut(places, rows)
            self._shapes[tensors, rows] = found
        return found

    def _cut(self, places: tuple[Place, ...], rows: int) -> tuple[Shape, ...]:
        return tuple((rows, *place.shape[1:]) if self._batched else place.shape for place in places)

    def _give_cut(
        self, job: Job, row: int, places: tuple[Place, ...], view: memoryview, device: str, fell_back: bool
    ) -> None:
        """From a run whose shapes are larger than the request's: what only the filling gave is cut off.

        Text has no step, so its end must be looked for; a request whose answer is text has its run for itself.
        """
        shapes = cropped_shapes(self._cut(places, job.form.rows), job.form, self._padding)
        try:
            parts = [
                _text(view, place, shape) if port.dtype == "string" else self._block(port, place, view, row, shape)
                for port, place, shape in zip(self._outputs, places, shapes, strict=True)
            ]
        except DataError as error:
            refuse(job, RunError(f"the device's answer is no text: {error.message}"))
            return
        give(job, Completion(parts, shapes, device, fell_back=fell_back))

    def _block(self, port: Port, place: Place, view: memoryview, row: int, shape: Shape) -> Bytes:
        """From `row` on, or from the beginning where there are no rows, the corner of that shape."""
        dtype = np.dtype(CARRIERS.get(port.dtype, port.dtype))
        array: NDArray[Any] = np.ndarray(place.shape, dtype, view, place.offset)
        mine = array[row:] if self._batched else array
        return mine[tuple(slice(size) for size in shape)].tobytes()


def give(job: Job, completion: Completion) -> None:
    """Give an answer to the receiver of a request that is still wanted."""
    if job.cancelled:
        return
    try:
        job.receiver(job, completion)
    except Exception:  # noqa: BLE001 - see below
        # A receiver that fails is a defect in a front end; it must not take the answers of others with it.
        _log.exception("a receiver failed")


def refuse(job: Job, error: NpuopsError) -> None:
    """Give an error to the receiver of a request that is still wanted."""
    if job.cancelled:
        return
    try:
        job.receiver(job, error)
    except Exception:  # noqa: BLE001 - as in `give`
        _log.exception("a receiver failed")


def _text(view: memoryview, place: Place, shape: Shape) -> Bytes:
    data = view[place.offset : place.offset + place.size]
    return data[: end_of(data, prod(shape))]


def _first_rows(jobs: Sequence[Job]) -> list[int]:
    """The row at which each request begins."""
    rows, at = [], 0
    for job in jobs:
        rows.append(at)
        at += job.form.rows
    return rows
