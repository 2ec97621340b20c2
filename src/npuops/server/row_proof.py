"""The proof that rows of a static batch do not know of each other, so that some of them may be filled up with nothing.

The model's owner says so (`[padding] rows`); a few runs at the launch show whether it can be true. A row must come out
the same, bit by bit, whatever stands in the other rows: the device runs the same program on the same place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import NpuopsError, OptionError
from npuops.events import Event, Observer
from npuops.runtime.bytes_tensor import LENGTH_BYTES, end_of
from npuops.runtime.facts import BatchRan
from npuops.runtime.job import Bytes, Completion, Job
from npuops.runtime.signature import Port, Shape, Signature, form_of

ADVICE: Final = "take `rows = true` out of [padding]; requests must then fill the whole batch"
_LARGE: Final = 1000.0

Rows = list[bytes]
"""Of one output, the bytes of each row."""


class Trial:
    """An observer in front of another: the runs of a trial are no requests, and are not counted as such.

    Attributes:
        over: pass on everything.
    """

    def __init__(self, observe: Observer) -> None:
        """The trial goes on until `over` is set."""
        self.over = False
        self._observe = observe

    def __call__(self, event: Event) -> None:
        """Pass a fact on, unless it is of a run of the trial."""
        if self.over or type(event) is not BatchRan:
            self._observe(event)


async def prove_rows(
    signature: Signature, shapes: Sequence[Shape], submit: Callable[[Job], None], now_us: Callable[[], int]
) -> None:
    """Run rows with different neighbours, and compare.

    Args:
        signature: batched; with one row in a run there is nothing to prove.
        shapes: of each input, without the batch axis.
        submit: to the engine, which should have nothing else to do.
        now_us: its clock.

    Raises:
        OptionError: a row changed with its neighbours, or the model could not be run on made-up inputs.
    """
    count = signature.max_rows
    if count < 2:
        return
    rng = np.random.default_rng(0)
    asked = [_made(port, (count, *shape), rng) for port, shape in zip(signature.inputs, shapes, strict=True)]
    alone = await _rows(signature, [array[:1] for array in asked], submit, now_us)
    for scale in (1.0, _LARGE):
        for kept in (0, count - 1):
            quiet = [_with_neighbours(array, kept, np.zeros_like(array)) for array in asked]
            others = [_made(port, array.shape, rng, scale) for port, array in zip(signature.inputs, asked, strict=True)]
            loud = [_with_neighbours(array, kept, other) for array, other in zip(asked, others, strict=True)]
            first = await _rows(signature, quiet, submit, now_us)
            second = await _rows(signature, loud, submit, now_us)
            _compare(signature, first, second, kept)
            if kept == 0:
                _compare(signature, alone, second, kept)


def _compare(signature: Signature, one: Sequence[Rows], two: Sequence[Rows], row: int) -> None:
    for port, left, right in zip(signature.outputs, one, two, strict=True):
        if left[row] != right[row]:
            raise OptionError(
                f"[padding] rows: a row of output {port.name!r} changes with the other rows of its run", advice=ADVICE
            )


def _with_neighbours(array: NDArray[Any], kept: int, others: NDArray[Any]) -> NDArray[Any]:
    mixed = others.copy()
    mixed[kept] = array[kept]
    return mixed


def _made(port: Port, shape: Shape, rng: np.random.Generator, scale: float = 1.0) -> NDArray[Any]:
    """Any values that every model takes: a whole number may be an index, so it is 0 or 1. Text is its letters' code."""
    if port.dtype in {"float16", "float32", "float64", "bfloat16"}:
        values = np.clip(rng.normal(size=shape) * scale, -60_000, 60_000)  # what float16 holds
        if port.dtype != "bfloat16":
            return values.astype(port.dtype)
        bits: NDArray[Any] = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return bits
    return rng.integers(0, 2, shape).astype("uint8" if port.dtype == "string" else port.dtype)


def _bytes(port: Port, array: NDArray[Any]) -> bytes:
    if port.dtype != "string":
        return np.ascontiguousarray(array).tobytes()
    length = (1).to_bytes(LENGTH_BYTES, "little")
    return b"".join(length + bytes([ord("a") + int(code)]) for code in array.ravel())


async def _rows(
    signature: Signature, arrays: Sequence[NDArray[Any]], submit: Callable[[Job], None], now_us: Callable[[], int]
) -> list[Rows]:
    future: asyncio.Future[list[Rows]] = asyncio.get_running_loop().create_future()

    def receive(_: Job, result: Completion | NpuopsError) -> None:
        if future.done():
            return
        if isinstance(result, Completion):
            triples = zip(signature.outputs, result.outputs, result.shapes, strict=True)
            future.set_result([_split(port, data, shape) for port, data, shape in triples])
        else:
            future.set_exception(result)

    parts = [_bytes(port, array) for port, array in zip(signature.inputs, arrays, strict=True)]
    submit(Job(form_of(signature, [array.shape for array in arrays]), parts, receive, now_us()))
    try:
        return await future
    except NpuopsError as error:
        raise OptionError(f"[padding] rows could not be proved: {error.message}", advice=ADVICE) from error


def _split(port: Port, data: Bytes, shape: Shape) -> list[bytes]:
    whole, each = bytes(data), prod(shape[1:])
    if port.dtype == "string":
        ends = [end_of(whole, each * row) for row in range(shape[0] + 1)]
    else:
        ends = [each * port.item_bytes * row for row in range(shape[0] + 1)]
    return [whole[begin:end] for begin, end in pairwise(ends)]
