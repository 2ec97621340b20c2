"""A head matched to a model: where the inputs lie, what goes out, and what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import DataError, TooLargeError
from npuops.runtime.bytes_tensor import join_elements
from npuops.runtime.signature import Port, Signature
from npuops.server.infer_plan import InferPlan, plan_of, raw_plan
from npuops.server.infer_request import InferHead, OutputWish, RegionRef, TensorHead

MODEL = Signature(
    inputs=(
        Port(name="a", dtype="float32", shape=(-1, 2)),
        Port(name="b", dtype="bool", shape=(-1,)),
        Port(name="t", dtype="string", shape=(-1, 1)),
    ),
    outputs=(
        Port(name="y", dtype="float32", shape=(-1, 4)),
        Port(name="h", dtype="float16", shape=(-1, 4)),
        Port(name="w", dtype="string", shape=(-1, 1)),
    ),
    batched=True,
    max_rows=4,
)
ONE = Signature(
    inputs=(Port(name="x", dtype="float32", shape=(-1, 3)),),
    outputs=(Port(name="y", dtype="float32", shape=(-1, 3)),),
    batched=True,
    max_rows=4,
)
LIMIT = 10_000
A = np.arange(4, dtype="f4").tobytes()
B = b"\1\0"
T = join_elements([b"one", b""])
HEADS = {
    "a": TensorHead("a", "FP32", (2, 2), data_bytes=len(A)),
    "b": TensorHead("b", "BOOL", (2,), data_bytes=len(B)),
    "t": TensorHead("t", "BYTES", (2, 1), data_bytes=len(T)),
}
DATA = {"a": A, "b": B, "t": T}
Y = (OutputWish("y", binary=True),)


def plan(*inputs: TensorHead, signature: Signature = MODEL, **changes: Any) -> InferPlan:
    limit = changes.pop("max_request_bytes", LIMIT)
    return plan_of(InferHead(id="", inputs=inputs, **{"outputs": Y, **changes}), signature, max_request_bytes=limit)


def one(**changes: Any) -> InferPlan:
    head = TensorHead(**{"name": "x", "datatype": "FP32", "shape": (2, 3), "data_bytes": 24, **changes})
    return plan(head, signature=ONE)


@given(st.permutations("abt"))
def test_parts_come_in_the_models_order_whatever_the_requests(order: list[str]) -> None:
    found = plan(*(HEADS[name] for name in order))
    assert found.is_binary
    assert found.form.rows == 2
    assert found.body_bytes == len(A) + len(B) + len(T)
    body = memoryview(b"".join(DATA[name] for name in order))
    assert list(map(bytes, found.parts(body))) == [A, B, T]
    assert list(map(bytes, found.gather(body))) == [A, B, T]
    assert found.arrange([DATA[name] for name in order]) == [A, B, T]


def test_a_single_input_is_the_body_itself() -> None:
    body = memoryview(bytes(24))
    assert one().parts(body)[0] is body


def test_inputs_may_lie_in_body_json_and_shared_memory_at_once() -> None:
    place = RegionRef("r", 4, len(B))
    found = plan(HEADS["t"], TensorHead("a", "FP32", (2, 2)), TensorHead("b", "BOOL", (2,), region=place))
    assert not found.is_binary
    assert found.has_json
    assert found.uses_regions
    assert [(position, name, shape) for position, name, _, shape in found.json_inputs] == [(1, "a", (2, 2))]
    memory = {place: B}
    assert list(map(bytes, found.gather(memoryview(T), [None, A, None], memory.__getitem__))) == [A, B, T]
    with pytest.raises(DataError, match="switched off"):
        found.gather(memoryview(T), [None, A, None])
    with pytest.raises(DataError, match="must be 0 or 1"):
        found.gather(memoryview(T), [None, A, None], lambda _: b"\1\7")


def test_pieces_of_a_protocol_that_sends_them_apart_leave_out_what_lies_in_shared_memory() -> None:
    place = RegionRef("r", 0, len(A))
    found = plan(HEADS["b"], TensorHead("a", "FP32", (2, 2), region=place), HEADS["t"])
    assert found.arrange([B, T], {place: A}.__getitem__) == [A, B, T]
    with pytest.raises(DataError, match="2 inputs with data, and the data of 3"):
        found.arrange([B, A, T])
    with pytest.raises(DataError, match="input 't' has 2 bytes"):
        found.arrange([B, B], {place: A}.__getitem__)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "z"}, "no input 'z'"),
        ({"datatype": "FP64"}, "input 'x' is FP64, the model takes FP32"),
        ({"datatype": "FLOAT"}, "unknown datatype 'FLOAT'"),
        ({"shape": (2, 4)}, r"shape \[2, 4\], the model takes \[-1, 3\]"),
        ({"shape": (6,)}, "the model takes"),
        ({"shape": (5, 3), "data_bytes": 60}, "5 rows; one request may have 1 to 4"),
        ({"shape": (0, 3), "data_bytes": 0}, "0 rows"),
        ({"data_bytes": 23}, r"'x' has 23 bytes of data, FP32 of shape \[2, 3\] has 24"),
        ({"data_bytes": None, "region": RegionRef("r", 0, 25)}, "25 bytes of data"),
    ],
)
def test_an_input_that_does_not_fit_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        one(**changes)


def test_each_input_must_be_there_exactly_once() -> None:
    with pytest.raises(DataError, match="'t' is missing"):
        plan(HEADS["a"], HEADS["b"])
    with pytest.raises(DataError, match="'a' is given twice"):
        plan(HEADS["a"], HEADS["a"])


def test_malformed_bool_and_text_are_refused_when_the_body_comes() -> None:
    found = plan(*HEADS.values())
    with pytest.raises(DataError, match="element 1 of the BOOL tensor 'b' is 2"):
        found.parts(memoryview(A + b"\1\2" + T))
    with pytest.raises(DataError, match="BYTES tensor 't'"):
        found.parts(memoryview(A + B + T[:-1] + b"\1"))
    with pytest.raises(DataError, match="3 bytes of tensor data follow the JSON"):
        found.parts(memoryview(bytes(3)))


def test_text_needs_room_for_the_lengths_of_its_elements() -> None:
    with pytest.raises(DataError, match="at least 8"):
        plan(HEADS["a"], HEADS["b"], TensorHead("t", "BYTES", (2, 1), data_bytes=7))


def test_more_bytes_than_the_server_takes_are_too_large() -> None:
    with pytest.raises(TooLargeError):
        plan(*HEADS.values(), max_request_bytes=len(A) + len(B) + len(T) - 1)
    plan(*HEADS.values(), max_request_bytes=len(A) + len(B) + len(T))


def test_all_outputs_go_out_where_none_is_named() -> None:
    found = plan(*HEADS.values(), outputs=(), binary_output=True)
    assert [each.port.name for each in found.wanted] == ["y", "h", "w"]
    assert not found.is_fixed, "the size of text differs from answer to answer"
    with pytest.raises(DataError, match="'h' is FP16, which has no form in JSON"):
        plan(*HEADS.values(), outputs=())


def test_outputs_come_in_the_order_of_the_request() -> None:
    found = plan(*HEADS.values(), outputs=(OutputWish("h", binary=True), OutputWish("y")))
    assert [each.index for each in found.wanted] == [1, 0]
    assert (found.answers_binary, found.answers_json, found.is_fixed) == (True, True, False)
    assert plan(*HEADS.values()).is_fixed


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ((OutputWish("q"),), "no output 'q'"),
        ((OutputWish("y"), OutputWish("y")), "asked for twice"),
        ((OutputWish("w", classes=2),), "only numbers can be classified"),
    ],
)
def test_an_output_that_cannot_be_given_is_named(wishes: tuple[OutputWish, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        plan(*HEADS.values(), outputs=wishes)


def test_parameters_of_the_request_are_understood() -> None:
    found = plan(*HEADS.values(), parameters={"timeout": 250, "priority": 2, "npuops_fallback": "forbid", "shard": "k"})
    assert (found.timeout_us, found.priority, found.fallback) == (250, 2, "forbid")
    assert found.parameters["shard"] == "k"
    plan(*HEADS.values(), parameters={"sequence_id": 0, "sequence_start": False})


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"timeout": -1}, "'timeout'"),
        ({"timeout": "5"}, "'timeout'"),
        ({"priority": True}, "'priority'"),
        ({"npuops_fallback": "budget"}, "'npuops_fallback' is 'budget'"),
        ({"npuops_fallback": []}, "'npuops_fallback'"),
        ({"npuops_fallbak": "allow"}, "unknown parameter 'npuops_fallbak'"),
        ({"sequence_id": 5}, "sequences are not served"),
        ({"sequence_id": "a"}, "sequences are not served"),
    ],
)
def test_parameters_that_mean_nothing_here_are_refused(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        plan(*HEADS.values(), parameters=parameters)


def test_a_body_without_a_head_is_the_only_input() -> None:
    found = raw_plan(ONE, 12, max_request_bytes=LIMIT)
    assert found.form.shapes == ((1, 3),)
    assert [bytes(part) for part in found.parts(memoryview(bytes(12)))] == [bytes(12)]
    assert found.answers_binary
    assert found.is_fixed


def test_a_body_without_a_head_gives_the_one_free_axis_its_size() -> None:
    free = Signature(
        inputs=(Port(name="x", dtype="int16", shape=(-1, 3, -1)),), outputs=ONE.outputs, batched=True, max_rows=1
    )
    assert raw_plan(free, 30, max_request_bytes=LIMIT).form.shapes == ((1, 3, 5),)
    with pytest.raises(DataError, match="fits no shape"):
        raw_plan(free, 31, max_request_bytes=LIMIT)
    with pytest.raises(TooLargeError):
        raw_plan(free, LIMIT + 6, max_request_bytes=LIMIT)


def test_a_body_without_a_head_is_the_one_text_of_a_text_input() -> None:
    image = Signature(
        inputs=(Port(name="image", dtype="string", shape=(-1,)),), outputs=ONE.outputs, batched=True, max_rows=4
    )
    found = raw_plan(image, 5, max_request_bytes=LIMIT)
    assert found.gather(memoryview(b"\xff\xd8\xff\0\1")) == [join_elements([b"\xff\xd8\xff\0\1"])]


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((-1, 3), "float32", "fits no shape"),
        ((-1, -1, -1), "float32", "2 free axes"),
        ((-1, 0, -1), "float32", "fits no shape"),
        ((-1, 2), "string", "is one element"),
        (None, "float32", "not even the rank"),
    ],
)
def test_a_body_that_fits_no_shape_needs_a_head(shape: tuple[int, ...] | None, dtype: str, words: str) -> None:
    signature = Signature(
        inputs=(Port(name="x", dtype=dtype, shape=shape),), outputs=ONE.outputs, batched=True, max_rows=4
    )
    with pytest.raises(DataError, match=words):
        raw_plan(signature, 13, max_request_bytes=LIMIT)
    with pytest.raises(DataError, match="needs a model with one input"):
        raw_plan(MODEL, 13, max_request_bytes=LIMIT)


def test_what_a_plan_remembers_is_bounded() -> None:
    found = one()
    for key in range(1000):
        found.remember(key, key, limit=10)
    assert len(found.cache) <= 10
    assert found.cache[999] == 999
