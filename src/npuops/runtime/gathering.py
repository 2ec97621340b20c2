"""The inputs of a run, copied into a slot: those of all its requests, one after the other along the batch axis.

Rows that nobody asked for are zeros (or empty texts). Where an artifact's other axes are longer than the requests',
each request is laid into an array of the artifact's shape; that is slower, and only what the model's owner allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError, OptionError, TooLargeError
from npuops.runtime import doorbell
from npuops.runtime.buckets import AxisPadding, Bucket, filled_shapes
from npuops.runtime.doorbell import Place
from npuops.runtime.job import Job
from npuops.runtime.signature import Form, Shape, Signature
from npuops.runtime.slots import Geometry, aligned
from npuops.runtime.text_tensor import EMPTY_BYTES

_LAYOUTS_KEPT: Final = 512

CARRIERS: Final = {"bfloat16": "uint16"}
"""What numpy moves a dtype as that it does not know."""


class Gatherer:
    """Copies for one device."""

    def __init__(self, geometry: Geometry, signature: Signature, padding: AxisPadding) -> None:
        """`geometry`: of the slots.

        Raises:
            OptionError: a text is to be filled up with a number.
        """
        for port, value in zip(signature.inputs, padding.values, strict=False):
            if value is not None and port.dtype == "string":
                raise OptionError(f"padding.values: {port.name!r} is text", advice="only numbers can be filled up")
        self._geometry, self._signature, self._padding = geometry, signature, padding
        self._works: dict[tuple[object, ...], bytes] = {}
        self._filled: dict[tuple[int, tuple[Shape, ...]], tuple[Shape, ...] | None] = {}

    def filled(self, bucket: Bucket, form: Form) -> tuple[Shape, ...] | None:
        """The artifact's shapes, without the batch axis, where they are not the request's; None where they are."""
        if not self._padding.values:
            return None
        key = (bucket.index, form.key)
        if key not in self._filled:
            if len(self._filled) >= _LAYOUTS_KEPT:
                self._filled.clear()
            shapes = filled_shapes(bucket, form)
            self._filled[key] = shapes if shapes != form.key else None
        return self._filled[key]

    def gather(self, view: memoryview, jobs: Sequence[Job], rows: int, bucket: Bucket, slot: int) -> bytes:
        """Copy, and tell the worker's half of the message.

        Args:
            view: of the whole memory.
            jobs: of equal keys.
            rows: of all of them.
            bucket: the artifact that they go to.
            slot: theirs.

        Raises:
            TooLargeError: they do not fit into the slot.
            DataError: a part has not the size of its shape: its neighbours would get its bytes.
        """
        form = jobs[0].form
        shapes = self.filled(bucket, form)
        if shapes is not None:
            return self._gather_filled(view, jobs, bucket, slot, shapes)
        base = slot * self._geometry.slot_bytes
        at, end = base, base + self._geometry.output_offset
        padded = rows if bucket.rows is None else bucket.rows
        sizes: list[int] = []
        for index, size in enumerate(form.sizes):
            begin = at
            for job in jobs:
                part = job.parts[index]
                nbytes = len(part)
                if size >= 0 and nbytes != (size if job.form is form else job.form.sizes[index]):
                    raise DataError(f"input {index} has {nbytes} bytes, its shape has {job.form.sizes[index]}")
                after = at + nbytes
                if after > end:
                    raise _too_large(jobs, self._geometry)
                view[at:after] = part
                at = after
            if padded > rows:
                row_bytes = size // form.rows if size >= 0 else EMPTY_BYTES * prod(form.key[index])
                at = self._blank(view, at, end, row_bytes * (padded - rows), jobs)
            sizes.append(at - begin)
            at = aligned(at)
        key = (slot, bucket.index, form.key, padded, *sizes)
        work = self._works.get(key)
        if work is None:
            work = self._works_made(key, [(padded, *shape) for shape in form.key], sizes, base)
        return work

    def _blank(self, view: memoryview, at: int, end: int, nbytes: int, jobs: Sequence[Job]) -> int:
        if at + nbytes > end:
            raise _too_large(jobs, self._geometry)
        view[at : at + nbytes] = bytes(nbytes)
        return at + nbytes

    def _gather_filled(
        self, view: memoryview, jobs: Sequence[Job], bucket: Bucket, slot: int, shapes: tuple[Shape, ...]
    ) -> bytes:
        base = slot * self._geometry.slot_bytes
        at, end = base, base + self._geometry.output_offset
        padded = sum(job.form.rows for job in jobs) if bucket.rows is None else bucket.rows
        sizes: list[int] = []
        for index, (port, shape) in enumerate(zip(self._signature.inputs, shapes, strict=True)):
            whole = (padded, *shape) if self._signature.batched else shape
            if port.dtype == "string":  # its axes are never filled up, only its rows
                at, nbytes = self._lay_text(view, at, end, jobs, index, prod(whole))
                sizes.append(nbytes)
                continue
            dtype = np.dtype(CARRIERS.get(port.dtype, port.dtype))
            nbytes = prod(whole) * dtype.itemsize
            if at + nbytes > end:
                raise _too_large(jobs, self._geometry)
            room: NDArray[Any] = np.ndarray(whole, dtype, view, at)
            room.fill(_carried(self._padding.values[index], port.dtype))
            row = 0
            for job in jobs:
                given = job.form.shapes[index]
                part = np.frombuffer(job.parts[index], dtype).reshape(given)
                corner = tuple(slice(size) for size in given)
                if self._signature.batched:
                    corner = (slice(row, row + job.form.rows), *corner[1:])
                room[corner] = part
                row += job.form.rows
            sizes.append(nbytes)
            at = aligned(at + nbytes)
        key = (slot, bucket.index, shapes, padded, *sizes)
        return self._works.get(key) or self._works_made(key, [(padded, *shape) for shape in shapes], sizes, base)

    def _lay_text(
        self, view: memoryview, at: int, end: int, jobs: Sequence[Job], index: int, elements: int
    ) -> tuple[int, int]:
        """Gives where the next tensor begins, and the bytes of this one."""
        given = sum(prod(job.form.shapes[index]) for job in jobs)
        data = b"".join([*(job.parts[index] for job in jobs), bytes(EMPTY_BYTES * (elements - given))])
        if at + len(data) > end:
            raise _too_large(jobs, self._geometry)
        view[at : at + len(data)] = data
        return aligned(at + len(data)), len(data)

    def _works_made(self, key: tuple[object, ...], shapes: Sequence[Shape], sizes: Sequence[int], base: int) -> bytes:
        """`shapes`: with the batch axis, which is left away again where the model has none."""
        if len(self._works) >= _LAYOUTS_KEPT:
            self._works.clear()
        places, at = [], base
        for shape, size in zip(shapes, sizes, strict=True):
            places.append(Place(at, size, shape if self._signature.batched else shape[1:]))
            at = aligned(at + size)
        slot, index = base // self._geometry.slot_bytes, key[1]
        assert isinstance(index, int)  # noqa: S101 - the key's second part is the artifact's index
        work = self._works[key] = doorbell.pack_work(slot, index, places)
        return work


def _carried(value: float | None, dtype: str) -> Any:
    """A fill value as numpy moves it."""
    if value is None:
        return 0
    if dtype == "bfloat16":
        return np.float32(value).view(np.uint32) >> np.uint32(16)
    return value


def _too_large(jobs: Sequence[Job], geometry: Geometry) -> TooLargeError:
    total = sum(len(part) for job in jobs for part in job.parts)
    return TooLargeError(
        f"the inputs have {total} bytes, a run takes {geometry.output_offset}",
        advice="send a smaller request, or raise max_request_bytes",
    )
