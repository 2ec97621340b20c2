from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import OptionError, StorageError
from npuops.runtime.signature import Port, Signature
from npuops.runtime.slots import ALIGNMENT, SharedMemory, aligned, geometry_of, make_memory


def ports(*shapes: tuple[int, ...], dtype: str = "float32") -> tuple[Port, ...]:
    return tuple(Port(name=f"t{at}", dtype=dtype, shape=shape) for at, shape in enumerate(shapes))


@given(widths=st.lists(st.integers(0, 300), max_size=6), rows=st.integers(1, 64))
def test_the_largest_run_fits_into_a_slot(widths: list[int], rows: int) -> None:
    tensors = ports(*[(-1, width) for width in widths])
    geometry = geometry_of(
        Signature(inputs=tensors, outputs=tensors, batched=True, max_rows=rows), rows=rows, slots=3, free_bytes=64
    )
    at = 0
    for width in widths:
        assert aligned(at) == at
        at = aligned(at + rows * width * 4)
    assert at <= geometry.output_offset
    assert geometry.output_offset + at <= geometry.slot_bytes
    assert geometry.slot_bytes % 4096 == 0
    assert geometry.total_bytes == 3 * geometry.slot_bytes


def test_a_request_of_the_most_bytes_fits_however_many_tensors_it_has() -> None:
    tensors = ports(*[(-1, -1)] * 10, dtype="uint8")
    signature = Signature(inputs=tensors, outputs=tensors, batched=True, max_rows=1)
    geometry = geometry_of(signature, rows=1, slots=1, free_bytes=1000)
    at = 0
    for _ in range(10):
        at = aligned(at + 100)
    assert at <= geometry.output_offset


def test_sizes_beyond_any_memory_are_an_option_error() -> None:
    tensors = ports((-1, 1 << 40))
    signature = Signature(inputs=tensors, outputs=tensors, batched=True, max_rows=64)
    with pytest.raises(OptionError, match="64 rows") as caught:
        geometry_of(signature, rows=64, slots=3, free_bytes=1)
    assert "max_rows" in caught.value.advice


def test_the_memory_has_no_name_and_nobody_can_shrink_it() -> None:
    descriptor = make_memory(8192)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 4096)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 16_384)
    memory = SharedMemory(descriptor, 8192)
    assert bytes(memory.view[:ALIGNMENT]) == bytes(ALIGNMENT)
    memory.close()
    assert "memfd:npuops-serve" not in Path("/proc/self/maps").read_text(encoding="utf-8")


def test_who_holds_a_slice_keeps_the_memory_until_it_lets_go() -> None:
    memory = SharedMemory(make_memory(4096), 4096)
    held = memory.view[:4]
    memory.view[0] = 7
    memory.close()
    assert held[0] == 7
    del held, memory
    assert "memfd:npuops-serve" not in Path("/proc/self/maps").read_text(encoding="utf-8")


def test_memory_that_cannot_be_mapped_is_a_storage_error_and_leaves_no_descriptor() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    reading, writing = os.pipe()
    with pytest.raises(StorageError):
        SharedMemory(reading, 4096)
    os.close(writing)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
