from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import DataError
from npuops.runtime.bytes_tensor import end_of
from npuops.runtime.text_tensor import EMPTY_BYTES, read_text, read_words, write_text


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_text_is_read_as_it_was_written(words: list[bytes]) -> None:
    array = np.empty(len(words), dtype=object)
    array[:] = words
    data = write_text(array)
    assert list(read_text(data, (len(words),))) == words
    for count in range(len(words) + 1):
        assert data[: end_of(data, count)] == write_text(array[:count])
    with pytest.raises(DataError):
        end_of(data, len(words) + 1)
    with pytest.raises(DataError):
        read_text(data, (len(words) + 1,))


@given(st.binary(max_size=40), st.integers(0, 5))
def test_bytes_that_are_no_text_are_a_data_error(data: bytes, count: int) -> None:
    for read in (read_text, read_words):
        with suppress(DataError):
            assert read(data, (count,)).shape == (count,)


def test_zeros_are_empty_texts() -> None:
    assert list(read_words(bytes(3 * EMPTY_BYTES), (3,))) == ["", "", ""]


def test_words_are_text_and_what_is_no_text_is_named() -> None:
    assert read_words(write_text(np.array(["é", "x"], dtype=object)), (1, 2)).tolist() == [["é", "x"]]
    with pytest.raises(DataError, match="element 1 is not UTF-8"):
        read_words(write_text(np.array([b"a", b"\xff"], dtype=object)), (2,))
