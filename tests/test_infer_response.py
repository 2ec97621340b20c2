"""Answers: what Triton's client reads from them, in every datatype and form."""

from __future__ import annotations

import string
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tritonclient import http as triton
from tritonclient.http import InferResult

from npuops.errors import DataError
from npuops.runtime.bytes_tensor import join_elements
from npuops.runtime.job import Completion
from npuops.runtime.signature import Port, Signature
from npuops.server.datatypes import DATATYPES, Datatype, to_bytes
from npuops.server.infer_json import JsonReader
from npuops.server.infer_plan import InferPlan, plan_of
from npuops.server.infer_request import InferHead, OutputWish, RegionRef
from npuops.server.infer_response import answer, binary_parts, response_head, response_json, with_id
from npuops.server.plan_cache import PlanCache, split_id


def plan(*wishes: OutputWish, dtypes: tuple[str, ...] = ("float32",), batched: bool = False) -> InferPlan:
    """Of a model without inputs, and with outputs `y0`, `y1`, …"""
    outputs = tuple(Port(name=f"y{at}", dtype=dtype, shape=None) for at, dtype in enumerate(dtypes))
    signature = Signature(inputs=(), outputs=outputs, batched=batched, max_rows=1)
    return plan_of(InferHead(id="", inputs=(), outputs=wishes), signature, max_request_bytes=1, labels={"y0": ["cat"]})


def completion(*tensors: tuple[bytes, tuple[int, ...]], device: str = "npu0", fell_back: bool = False) -> Completion:
    return Completion(
        [memoryview(part) for part, _ in tensors], tuple(shape for _, shape in tensors), device, fell_back=fell_back
    )


def result_of(plan_: InferPlan, done: Completion, identity: bytes = b"") -> InferResult:
    head, parts = answer(plan_, "m", "3", done, identity)
    body = b"".join((head, *parts))
    return InferResult.from_response_body(body, header_length=len(head) if plan_.answers_binary else None)


@given(st.data())
def test_bytes_go_out_as_they_came(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from([each for each in DATATYPES.values() if each.item_bytes]))
    array: NDArray[Any] = data.draw(hnp.arrays(datatype.wire, hnp.array_shapes(max_side=4, min_side=0)))
    found = plan(OutputWish("y0", binary=True), dtypes=(datatype.dtype,))
    head, parts = answer(found, "m", "3", completion((to_bytes(array, datatype), array.shape)))
    assert b"".join(parts) == to_bytes(array, datatype)
    output = orjson.loads(head)["outputs"][0]
    assert (output["datatype"], output["shape"]) == (datatype.word, list(array.shape))
    assert output["parameters"]["binary_data_size"] == array.size * datatype.item_bytes


@given(st.data())
def test_json_and_bytes_hold_the_same_values(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from([each for each in DATATYPES.values() if each.has_json and each.item_bytes]))
    finite = {"allow_nan": False, "allow_infinity": False} if datatype.wire.kind == "f" else None
    array: NDArray[Any] = data.draw(
        hnp.arrays(datatype.wire, hnp.array_shapes(max_side=4, min_side=0), elements=finite)
    )
    found = plan(OutputWish("y0"), dtypes=(datatype.dtype,))
    text = response_json(found, "m", "3", completion((to_bytes(array, datatype), array.shape)))
    back = np.array(orjson.loads(text)["outputs"][0]["data"], datatype.wire).reshape(array.shape)
    assert back.tobytes() == array.tobytes()


def test_a_tensor_that_lies_askew_in_memory_is_written_right() -> None:
    values = np.array([1.5, -2.25, 1e-3], "f4")
    askew = memoryview(b"abc" + values.tobytes())[3:]
    text = response_json(plan(OutputWish("y0")), "m", "3", Completion([askew], ((3,),), "d", fell_back=False))
    assert orjson.loads(text)["outputs"][0]["data"] == [1.5, -2.25, 0.001]


def test_floats_are_written_as_short_as_their_own_precision_allows() -> None:
    text = response_json(plan(OutputWish("y0")), "m", "3", completion((np.array([0.1], "f4").tobytes(), (1,))))
    assert b'"data":[0.1]' in text


def test_tritons_client_reads_bytes_and_json_in_one_answer() -> None:
    floats, texts = np.array([[1, 2]], "f4"), [b"a", "\u00e9".encode()]
    found = plan(
        OutputWish("y1", binary=True), OutputWish("y0"), OutputWish("y2", binary=True),
        dtypes=("float32", "string", "int64"),
    )  # fmt: skip
    done = completion((floats.tobytes(), (1, 2)), (join_elements(texts), (2,)), (np.int64(7).tobytes(), (1,)))
    result = result_of(found, done, b'"id 9"')
    assert result.as_numpy("y0").tolist() == floats.tolist()
    assert result.as_numpy("y1").tolist() == texts
    assert result.as_numpy("y2").tolist() == [7]
    response = result.get_response()
    assert [each["name"] for each in response["outputs"]] == ["y1", "y0", "y2"]
    assert (response["id"], response["model_name"], response["model_version"]) == ("id 9", "m", "3")
    assert response["parameters"] == {"npuops_device": "npu0", "npuops_fallback": False}


def test_text_goes_out_as_json_strings() -> None:
    found = plan(OutputWish("y0"), dtypes=("string",))
    text = response_json(found, "m", "3", completion((join_elements(['"\u00e9'.encode(), b""]), (2,))))
    assert orjson.loads(text)["outputs"][0]["data"] == ['"\u00e9', ""]
    with pytest.raises(DataError, match="not UTF-8"):
        response_json(found, "m", "3", completion((join_elements([b"\xff"]), (1,))))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_value_that_json_does_not_have_is_an_error_that_advises_bytes(value: float, dtype: str) -> None:
    found = plan(OutputWish("y0"), dtypes=(dtype,))
    with pytest.raises(DataError, match="element 1 of output 'y0' is") as caught:
        response_json(found, "m", "3", completion((np.array([1, value], dtype).tobytes(), (2,))))
    assert "binary_data" in caught.value.advice


def test_classes_go_out_as_text_in_either_form() -> None:
    done = completion((np.array([[0.5, 2], [3, 1]], "f4").tobytes(), (2, 2)))
    for binary in (True, False):
        found = plan(OutputWish("y0", binary=binary, classes=1), batched=True)
        assert not found.is_fixed
        output = result_of(found, done).as_numpy("y0")
        assert [bytes(each) if binary else each.encode() for each in output.reshape(-1)] == [
            b"2.000000:1",
            b"3.000000:0:cat",
        ]
        assert output.shape == (2, 1)


def test_an_output_in_shared_memory_says_so_and_sends_nothing() -> None:
    found = plan(OutputWish("y0", region=RegionRef("r", 8, 100)))
    head, parts = answer(found, "m", "3", completion((bytes(4), (1,))))
    assert parts == []
    assert not found.answers_binary
    assert orjson.loads(head)["outputs"][0]["parameters"] == {
        "shared_memory_region": "r",
        "shared_memory_byte_size": 4,
        "shared_memory_offset": 8,
    }


def test_a_head_is_kept_for_what_it_depends_on_and_nothing_else() -> None:
    found = plan(OutputWish("y0", binary=True))
    for done in (
        completion((bytes(4), (1,))),
        completion((bytes(8), (2,))),
        completion((bytes(4), (1,)), device="cpu"),
        completion((bytes(4), (1,)), fell_back=True),
    ):
        for _ in range(2):
            head, parts = answer(found, "m", "3", done, b'"7"')
            assert head == response_head(found, "m", "3", done, b'"7"')
            assert orjson.loads(head) == {
                "id": "7",
                "model_name": "m",
                "model_version": "3",
                "parameters": {"npuops_device": done.device, "npuops_fallback": done.fell_back},
                "outputs": [
                    {
                        "name": "y0",
                        "datatype": "FP32",
                        "shape": list(done.shapes[0]),
                        "parameters": {"binary_data_size": len(done.outputs[0])},
                    }
                ],
            }
            assert parts == binary_parts(found, done) == list(done.outputs)


def test_only_an_answer_without_values_has_a_head_to_keep() -> None:
    done = completion((bytes(4), (1,)))
    assert response_head(plan(OutputWish("y0")), "m", "3", done) is None
    assert with_id(b'{"a":1}', b"") == b'{"a":1}'


@given(st.data())
def test_tritons_client_gets_back_what_it_sent_in_every_datatype_and_form(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from([each for each in DATATYPES.values() if each.word != "BF16"]))
    binary = data.draw(st.booleans()) if datatype.has_json else True
    array = data.draw(_sent(datatype))
    tensor = triton.InferInput("x", list(array.shape), datatype.word)
    tensor.set_data_from_numpy(array, binary_data=binary)
    wish = triton.InferRequestedOutput("y", binary_data=binary)
    identity = data.draw(st.sampled_from(["", "7", "\u00e9"]))
    body, size = triton.InferenceServerClient.generate_request_body([tensor], outputs=[wish], request_id=identity)

    port = Port(name="x", dtype=datatype.dtype, shape=None)
    echo = Signature(inputs=(port,), outputs=(replace(port, name="y"),), batched=False, max_rows=1)
    plans = PlanCache(echo, max_request_bytes=1 << 20)
    if size is None:
        found, values, echoed = JsonReader().read(body, plans)
        parts = found.gather(memoryview(b""), values)
    else:
        header, echoed = split_id(body[:size])
        found = plans.of_header(header)
        echoed = echoed or found.id
        parts = list(found.parts(memoryview(body)[size:]))
    result = result_of(found, Completion(parts, found.form.shapes, "npu0", fell_back=False), echoed)
    back = result.as_numpy("y")
    assert back.shape == array.shape
    if datatype.word == "BYTES":
        assert [each if binary else each.encode() for each in back.reshape(-1)] == array.reshape(-1).tolist()
    else:
        assert back.tobytes() == array.tobytes()
    assert result.get_response().get("id", "") == identity


def _sent(datatype: Datatype) -> st.SearchStrategy[NDArray[Any]]:
    shapes = hnp.array_shapes(max_side=3)
    if datatype.word == "BYTES":
        return hnp.arrays(object, shapes, elements=st.text(string.printable, max_size=4).map(str.encode))
    finite = {"allow_nan": False, "allow_infinity": False} if datatype.wire.kind == "f" else None
    return hnp.arrays(datatype.wire, shapes, elements=finite)
