"""Every datatype of the protocol: to bytes and back, as the clients that exist do it."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

from npuops.errors import DataError
from npuops.runtime.signature import ITEM_BYTES
from npuops.server.datatypes import DATATYPES, Datatype, check_json, datatype_named, datatype_of, from_bytes, to_bytes

NUMBERS = [each for each in DATATYPES.values() if each.item_bytes]


def test_every_dtype_that_a_model_may_have_is_a_datatype_of_the_same_size() -> None:
    assert {each.dtype: each.item_bytes for each in DATATYPES.values()} == ITEM_BYTES


@pytest.mark.parametrize("datatype", [each for each in NUMBERS if each.word != "BF16"], ids=lambda each: each.word)
def test_the_words_are_those_of_tritons_client(datatype: Datatype) -> None:
    assert np_to_triton_dtype(np.dtype(datatype.dtype)) == datatype.word


@given(st.data())
def test_arrays_come_back_bit_for_bit(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(NUMBERS))
    array: NDArray[Any] = data.draw(hnp.arrays(datatype.wire, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0)))
    part = to_bytes(array, datatype)
    assert len(part) == array.size * datatype.item_bytes
    back = from_bytes(part, datatype, array.shape)
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(hnp.arrays(np.dtype(">f4"), hnp.array_shapes(max_side=4)))
def test_the_other_byte_order_and_strides_are_put_right(array: NDArray[Any]) -> None:
    part = to_bytes(array.T, DATATYPES["FP32"])
    assert from_bytes(part, DATATYPES["FP32"], array.T.shape).tobytes() == array.T.astype("<f4").tobytes()


@given(st.lists(st.binary(max_size=9), min_size=4, max_size=4))
def test_texts_keep_their_shape(elements: list[bytes]) -> None:
    array = np.empty((2, 2), object)
    array[:] = np.array([None] * 4).reshape(2, 2)
    array.reshape(-1)[:] = elements
    back = from_bytes(to_bytes(array, DATATYPES["BYTES"]), DATATYPES["BYTES"], (2, 2), "x")
    assert back.reshape(-1).tolist() == elements


def test_bf16_travels_as_its_bits() -> None:
    values = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    part = to_bytes(values.view(np.uint16), DATATYPES["BF16"])
    assert part == values.tobytes()


def test_a_bool_byte_that_is_neither_0_nor_1_is_refused_with_its_place() -> None:
    with pytest.raises(DataError, match="element 2 of the BOOL tensor 'x' is 7"):
        from_bytes(b"\0\1\7", DATATYPES["BOOL"], (3,), "x")


def test_bytes_that_are_not_those_of_the_shape_are_refused() -> None:
    with pytest.raises(DataError, match="has 7 bytes; FP32 of shape \\[2\\] has 8"):
        from_bytes(bytes(7), DATATYPES["FP32"], (2,), "x")


def test_an_unknown_datatype_names_the_nearest() -> None:
    with pytest.raises(DataError, match="'x' has the unknown datatype 'FLOAT32'"):
        datatype_named("FLOAT32", "x")
    with pytest.raises(DataError, match="int4"):
        datatype_of("int4")


@pytest.mark.parametrize("word", ["FP16", "BF16"])
def test_sixteen_bit_floats_have_no_form_in_json(word: str) -> None:
    with pytest.raises(DataError, match="no form in JSON"):
        check_json(DATATYPES[word], "input 'x'", "send bytes")
