"""BYTES tensors: what goes in comes out, and no malformed one gets through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from npuops.errors import DataError
from npuops.runtime.bytes_tensor import check_elements, join_elements, split_elements


@given(st.lists(st.binary(max_size=30)))
def test_elements_come_back_as_they_were(elements: list[bytes]) -> None:
    tensor = join_elements(elements)
    check_elements(tensor, len(elements), "x")
    assert split_elements(memoryview(tensor)) == elements


@given(st.lists(st.binary(max_size=30), min_size=1))
def test_tritons_client_writes_and_reads_the_same(elements: list[bytes]) -> None:
    array = np.empty(len(elements), object)
    array[:] = elements
    assert serialize_byte_tensor(array).item() == join_elements(elements)
    assert list(deserialize_bytes_tensor(join_elements(elements))) == elements


@given(st.binary(max_size=40), st.integers(0, 6))
def test_whatever_passes_the_check_has_exactly_the_elements_of_its_shape(tensor: bytes, count: int) -> None:
    try:
        check_elements(tensor, count, "x")
    except DataError:
        return
    assert len(split_elements(tensor)) == count


@pytest.mark.parametrize(
    ("tensor", "count", "words"),
    [
        (b"\x05\0\0\0ab", 1, "ends 3 bytes behind"),
        (b"\0\0\0\0\x01", 2, "no length"),
        (b"\0\0\0\0", 2, "has 1 elements"),
        (b"\0\0\0\0" * 3, 2, "has more elements"),
        (b"\xff\xff\xff\xff", 1, "behind the tensor"),
        (b"", 1, "has 0 elements"),
    ],
)
def test_a_malformed_tensor_is_refused_with_the_place(tensor: bytes, count: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_elements(tensor, count, "x")


@given(st.binary(max_size=40))
def test_splitting_never_fails_in_another_way(tensor: bytes) -> None:
    try:
        found = split_elements(tensor)
    except DataError:
        return
    assert join_elements(found) == tensor
