from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import DataError, TooLargeError
from npuops.runtime import doorbell
from npuops.runtime.buckets import NO_PADDING, AxisPadding, Bucket
from npuops.runtime.gathering import Gatherer
from npuops.runtime.job import Job
from npuops.runtime.signature import Port, Signature, form_of
from npuops.runtime.slots import geometry_of

A = Port(name="a", dtype="float32", shape=(-1, 3))
B = Port(name="b", dtype="int64", shape=(-1,))
SIGNATURE = Signature(inputs=(A, B), outputs=(A,), batched=True, max_rows=8)
GEOMETRY = geometry_of(SIGNATURE, rows=8, slots=3, free_bytes=1024)
FREE = Bucket(2, None, ((3,), ()))


def job(rows: int, value: int) -> Job:
    arrays = (np.full((rows, 3), value, np.float32), np.full(rows, value, np.int64))
    form = form_of(SIGNATURE, [array.shape for array in arrays])
    return Job(form, [array.tobytes() for array in arrays], lambda *_: None, 0)


@given(rows=st.lists(st.integers(1, 3), min_size=1, max_size=4), slot=st.integers(0, 2), fixed=st.booleans())
def test_every_request_lies_where_the_worker_looks_for_its_rows(rows: list[int], slot: int, fixed: bool) -> None:
    if sum(rows) > 8:
        rows = rows[:2]
    jobs = [job(count, number + 1) for number, count in enumerate(rows)]
    memory = bytearray(b"\xff" * GEOMETRY.total_bytes)
    gatherer = Gatherer(GEOMETRY, SIGNATURE, NO_PADDING)
    bucket = Bucket(2, 8, FREE.shapes) if fixed else FREE
    for _ in range(2):  # the second time from what it remembers
        work = gatherer.gather(memoryview(memory), jobs, sum(rows), bucket, slot)
        found_slot, index, places = doorbell.unpack_work(work)
        assert (found_slot, index) == (slot, 2)
        wanted = [number + 1 for number, count in enumerate(rows) for _ in range(count)]
        wanted += [0] * (8 - sum(rows) if fixed else 0)
        for place, port in zip(places, SIGNATURE.inputs, strict=True):
            array = np.frombuffer(memory, port.dtype, prod(place.shape), place.offset).reshape(place.shape)
            assert array.reshape(len(wanted), -1)[:, 0].tolist() == wanted
    begin, end = slot * GEOMETRY.slot_bytes, slot * GEOMETRY.slot_bytes + GEOMETRY.output_offset
    assert set(memory[:begin]) | set(memory[end:]) <= {0xFF}, "it wrote outside of its slot's inputs"


def test_a_part_that_is_too_short_or_too_long_is_refused_even_where_the_sum_is_right() -> None:
    short, long = job(1, 1), job(1, 2)
    short.parts, long.parts = [short.parts[0][:-4], short.parts[1]], [bytes(16), long.parts[1]]
    with pytest.raises(DataError, match="its shape has 12"):
        Gatherer(GEOMETRY, SIGNATURE, NO_PADDING).gather(
            memoryview(bytearray(GEOMETRY.total_bytes)), [short, long], 2, FREE, 0
        )


def test_neither_inputs_nor_what_fills_them_up_leave_the_slot() -> None:
    port = Port(name="a", dtype="uint8", shape=(-1, -1))
    signature = Signature(inputs=(port,), outputs=(port,), batched=True, max_rows=8)
    geometry = geometry_of(signature, rows=8, slots=2, free_bytes=1000)
    form = form_of(signature, [(1, 600)])
    jobs = [Job(form, [bytes(600)], lambda *_: None, 0) for _ in range(2)]
    memory = bytearray(b"\xff" * geometry.total_bytes)
    gatherer = Gatherer(geometry, signature, AxisPadding(values=(0.0,)))
    for bucket, run in (
        (Bucket(0, None, ((-1,),)), jobs),
        (Bucket(0, 4, ((-1,),)), jobs[:1]),
        (Bucket(1, None, ((1200,),)), jobs[:1]),
    ):
        with pytest.raises(TooLargeError):
            gatherer.gather(memoryview(memory), run, len(run), bucket, 0)
    assert set(memory[geometry.output_offset :]) == {0xFF}


@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "bfloat16"])
def test_what_a_request_leaves_open_is_filled_with_the_owners_value(dtype: str) -> None:
    port = Port(name="a", dtype=dtype, shape=(-1, -1))
    signature = Signature(inputs=(port,), outputs=(port,), batched=True, max_rows=2)
    geometry = geometry_of(signature, rows=2, slots=1, free_bytes=1000)
    memory = bytearray(geometry.total_bytes)
    part = np.zeros((1, 2), np.uint16 if dtype == "bfloat16" else dtype)
    ask = Job(form_of(signature, [(1, 2)]), [part.tobytes()], lambda *_: None, 0)
    bucket = Bucket(0, 2, ((4,),))
    work = Gatherer(geometry, signature, AxisPadding(values=(1.0,))).gather(memoryview(memory), [ask], 1, bucket, 0)
    _, _, (place,) = doorbell.unpack_work(work)
    assert place.shape == (2, 4)
    one = 0x3F80 if dtype == "bfloat16" else 1
    assert np.frombuffer(memory, part.dtype, 8, 0).tolist() == [0, 0, one, one, one, one, one, one]
