"""What a server answered, and whether it is the same."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as messages

from npuops.loadgen.answers import Checker, agreed, answer_of, difference, grpc_answer, http_answer
from npuops.loadgen.proto_wire import field, varint


def body(values: list[float], name: str = "y", **more: object) -> bytes:
    output = {"name": name, "datatype": "FP32", "shape": [len(values)], "data": values}
    return json.dumps({"model_name": "m", **more, "outputs": [output]}).encode()


def binary(values: list[float]) -> tuple[bytes, int]:
    raw = np.array(values, "<f4").tobytes()
    output = {"name": "y", "datatype": "FP32", "shape": [len(values)], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"outputs": [output]}).encode()
    return head + raw, len(head)


def test_json_binary_and_grpc_say_the_same() -> None:
    values = [1.0, 2.5]
    tensor = messages.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=[2])
    raw = messages.ModelInferResponse(outputs=[tensor], raw_output_contents=[np.array(values, "<f4").tobytes()])
    tensor.contents.fp32_contents.extend(values)
    typed = messages.ModelInferResponse(outputs=[tensor])
    first = http_answer(body(values), None)
    others = [http_answer(*binary(values)), *(grpc_answer(m.SerializeToString()) for m in (raw, typed))]
    for other in others:
        assert difference(first, other, 0) == ("", None)


def test_identifiers_and_parameters_do_not_count() -> None:
    checker = Checker([http_answer(body([1.0]), None)], "json", 0.0)
    checker.check(0, body([1.0], id="7", parameters={"device": "npu0"}), None)
    assert checker.taken().differing == 0


def test_what_differs_is_said_and_measured() -> None:
    first = http_answer(body([1.0, 2.0]), None)
    words, largest = difference(first, http_answer(body([1.0, 2.5]), None), 0.0)
    assert (words, largest) == ("'y' differs by 0.5", 0.5)
    assert difference(first, http_answer(body([1.0, 2.0], name="z"), None), 0.0)[0].startswith("the outputs were")
    assert "was [2], then [1]" in difference(first, http_answer(body([1.0]), None), 0.0)[0]


def test_a_tolerance_lets_last_bits_differ_and_their_size_is_still_reported() -> None:
    checker = Checker([http_answer(body([1.0]), None)], "json", 1e-3)
    for value in (1.0005, 1.0005, 1.1):
        checker.check(0, body([value]), None)
    found = checker.taken()
    assert (found.compared, found.differing) == (3, 1)
    assert found.largest_difference == pytest.approx(0.1, rel=1e-3)
    assert checker.taken().compared == 0, "a stage begins at zero"
    assert agreed([found, found]).compared == 6


@given(data=st.binary(max_size=200), length=st.none() | st.integers(0, 300), form=st.sampled_from(["grpc", "json"]))
def test_a_damaged_answer_is_counted_as_different_and_never_crashes(data: bytes, length: int | None, form: str) -> None:
    checker = Checker([http_answer(body([1.0]), None)], form, 0.0)
    checker.check(0, data, length)
    assert checker.taken().differing == 1


def test_any_other_body_is_compared_byte_by_byte() -> None:
    first = answer_of(b"abc", None, "body")
    assert difference(first, answer_of(b"abc", None, "body"), 0.0)[0] == ""
    assert difference(first, answer_of(b"abd", None, "body"), 0.0)[0] == "'body' differs"


def test_floats_that_a_server_did_not_pack_all_count() -> None:
    def answered(*values: float) -> bytes:
        contents = b"".join(varint(6 << 3 | 5) + struct.pack("<f", value) for value in values)
        return field(5, field(1, "y") + field(2, "FP32") + field(3, varint(len(values))) + field(5, contents))

    one, other = (grpc_answer(answered(1.0, last)) for last in (2.0, 3.0))
    assert one[0].values.tolist() == [1.0, 2.0]
    assert "differs by 1" in difference(one, other, 0.0)[0]
