"""Requests as bytes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from npuops.errors import OptionError
from npuops.loadgen.model_inputs import tensor_of
from npuops.loadgen.oip_request import binary_body, http_post, joined, json_body, parse_headers

X = tensor_of("x", "FP32", np.array([[1, 2]], np.float32))
TEXT = tensor_of("t", "BYTES", np.array(["a"], object))


def test_binary_tensors_follow_a_head_that_tells_their_sizes() -> None:
    body, head = binary_body([X, TEXT])
    told = json.loads(body[:head])
    assert [tensor["parameters"]["binary_data_size"] for tensor in told["inputs"]] == [8, 5]
    assert body[head:] == np.array([1, 2], "<f4").tobytes() + b"\x01\0\0\0a"
    assert told["parameters"] == {"binary_data_output": True}


def test_json_tensors_are_flat() -> None:
    assert json.loads(json_body([X, TEXT]))["inputs"] == [
        {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]},
        {"name": "t", "shape": [1], "datatype": "BYTES", "data": ["a"]},
    ]


def test_half_precision_has_no_form_in_json() -> None:
    with pytest.raises(OptionError, match="no form in JSON"):
        json_body([tensor_of("x", "FP16", np.ones(1, np.float16))])


def test_a_post_is_whole() -> None:
    assert (
        http_post("/p", "h:1", {"A": "b"}, b"xyz")
        == b"POST /p HTTP/1.1\r\nHost: h:1\r\nA: b\r\nContent-Length: 3\r\n\r\nxyz"
    )


@pytest.mark.parametrize("text", ["no colon", "a b: c", "A: b\r\nC: d", "A: ü", "Host: x", "content-length: 3", ": x"])
def test_what_is_no_header_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        parse_headers([text])


def test_headers_are_read() -> None:
    assert parse_headers(["A: b:c", "D:"]) == {"A": "b:c", "D": ""}


@pytest.mark.parametrize(
    ("datatype", "array", "words"),
    [
        ("FP32", np.array([1, np.nan], np.float32), "holds NaN or infinity"),
        ("FP64", np.array([np.inf]), "holds NaN or infinity"),
        ("BYTES", np.array([b"\xff\xd8"], object), "bytes that are no text"),
    ],
)
def test_values_that_json_would_change_are_refused(datatype: str, array: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        json_body([tensor_of("x", datatype, array)])


def test_of_two_headers_of_one_name_the_later_goes_whatever_its_case() -> None:
    found = joined({"Content-Type": "a/b", "X": "1"}, {"content-type": "c/d"})
    assert found == {"content-type": "c/d", "X": "1"}
