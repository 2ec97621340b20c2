from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from npuops.runtime.job import Completion
from npuops.runtime.signature import Port, Signature
from npuops.server.grpc_encode import response_parts, stream_error, stream_response, varint
from npuops.server.infer_plan import InferPlan, plan_of
from npuops.server.infer_request import InferHead, OutputWish, RegionRef, TensorHead

SIGNATURE = Signature(
    inputs=(Port(name="x", dtype="float32", shape=(-1, 2)),),
    outputs=(
        Port(name="y", dtype="float32", shape=(-1, 2)),
        Port(name="t", dtype="string", shape=(-1, 1)),
        Port(name="z", dtype="int64", shape=(-1, -1)),
    ),
    batched=True,
    max_rows=8,
)
Y = np.array([[1, 2]], np.float32)


def planned(*outputs: OutputWish, **parameters: bool) -> InferPlan:
    head = InferHead("", (TensorHead("x", "FP32", (1, 2), 8),), outputs, parameters, binary_output=True)
    return plan_of(head, SIGNATURE, max_request_bytes=1000)


def completion(text: bytes = b"abc", z: int = 300) -> Completion:
    outputs = [Y.tobytes(), len(text).to_bytes(4, "little") + text, bytes(8 * z)]
    return Completion(outputs, ((1, 2), (1, 1), (1, z)), "npu:0", fell_back=True)


def answered(plan: InferPlan, done: Completion, identity: str = "") -> service_pb2.ModelInferResponse:
    return service_pb2.ModelInferResponse.FromString(b"".join(response_parts(plan, "m", "3", done, identity)))


def test_an_answer_is_read_by_others_each_time_it_is_made() -> None:
    plan = planned()
    for text, z, identity in [(b"abc", 300, ""), (b"d", 1, "é1"), (b"", 0, "2"), (b"abc", 300, "")]:
        response = answered(plan, completion(text, z), identity)
        assert (response.model_name, response.model_version, response.id) == ("m", "3", identity)
        assert response.parameters["npuops_device"].string_param == "npu:0"
        assert response.parameters["npuops_fallback"].bool_param is True
        assert [(each.name, each.datatype, list(each.shape)) for each in response.outputs] == [
            ("y", "FP32", [1, 2]),
            ("t", "BYTES", [1, 1]),
            ("z", "INT64", [1, z]),
        ]
        assert list(response.raw_output_contents) == completion(text, z).outputs


def test_a_fixed_answer_keeps_its_head_and_copies_no_output() -> None:
    plan = planned(OutputWish("y", binary=True))
    assert plan.is_fixed
    first, second = (response_parts(plan, "m", "3", completion(), "") for _ in range(2))
    assert first[0] is second[0]
    assert first[-1] == Y.tobytes()
    other = Completion(completion().outputs, completion().shapes, "cpu", fell_back=False)
    assert answered(plan, other).parameters["npuops_device"].string_param == "cpu"


def test_outputs_in_shared_memory_have_no_raw_contents_and_keep_the_places_of_the_others() -> None:
    place = RegionRef("r", 16, 8)
    both = answered(planned(OutputWish("y", region=place), OutputWish("z", binary=True)), completion(z=1))
    assert list(both.raw_output_contents) == [b"", bytes(8)]
    alone = answered(planned(OutputWish("y", region=place)), completion())
    assert list(alone.raw_output_contents) == []
    assert alone.outputs[0].parameters["shared_memory_offset"].int64_param == 16


def test_a_stream_carries_answers_and_errors() -> None:
    parts = response_parts(planned(), "m", "3", completion(), "7")
    message = service_pb2.ModelStreamInferResponse.FromString(stream_response(parts))
    assert (message.error_message, message.infer_response.id) == ("", "7")
    error = service_pb2.ModelStreamInferResponse.FromString(stream_error("too late – sorry", "8"))
    assert (error.error_message, error.infer_response.id) == ("too late – sorry", "8")


def test_the_last_answer_says_so_where_the_client_asks() -> None:
    plan = planned(OutputWish("y", binary=True), triton_enable_empty_final_response=True)
    assert answered(plan, completion()).parameters["triton_final_response"].bool_param is True


@given(st.integers(0, 2**40))
def test_a_length_is_written_as_protobuf_does(number: int) -> None:
    expected = service_pb2.StatisticDuration(count=number).SerializeToString()[1:] or b"\0"
    assert varint(number) == expected


@pytest.mark.parametrize("rows", [1, 2])
def test_classes_are_texts(rows: int) -> None:
    plan = planned(OutputWish("y", binary=True, classes=1))
    scores = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    done = Completion([scores.tobytes(), b"", b""], ((rows, 2), (rows, 1), (rows, 0)), "npu:0", fell_back=False)
    response = answered(plan, done)
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("BYTES", [rows, 1])
    assert b"1.000000:1" in response.raw_output_contents[0]
