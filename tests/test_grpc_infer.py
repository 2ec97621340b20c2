from __future__ import annotations

import asyncio
import gc
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from grpc_models import EchoModel, Lab, Refusing, echo_model, lab_served
from grpc_served import Served
from npuops.errors import QuotaError, UnauthenticatedError
from npuops.runtime.job import Completion, Job
from npuops.runtime.tenant_options import TenantOptions, Tenants
from npuops.server.access import Access, TenantGate
from npuops.server.grpc_call import GrpcCall
from npuops.server.grpc_infer import Request
from npuops.server.http2_streams import Http2Stream

X = np.array([[1.0, 2.0, -3.5, 0.25]], np.float32)


@pytest.fixture(scope="module")
def lab() -> Lab:
    dtypes = ["float32", "float64", "float16", "bool", "int8", "uint8", "int16", "int32", "int64", "uint64", "string"]
    models = [echo_model(f"echo_{dtype}", dtype) for dtype in [*dtypes, "bfloat16"]]
    models += [echo_model("echo", "float32"), echo_model("held", "float32"), echo_model("two", "float32", "int64")]
    return Lab(models)


@pytest.fixture(scope="module")
def server(lab: Lab) -> Iterator[Served]:
    with lab_served(lab) as it:
        yield it


@pytest.fixture
def client(server: Served) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as it:
        yield it


def tensor(name: str, array: np.ndarray[Any, Any], word: str) -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), word)
    given.set_data_from_numpy(array)
    return given


VALUES = {
    "float32": ("FP32", np.array([[1.5, -2, 0, 4]], np.float32)),
    "float64": ("FP64", np.array([[1.5, -2, 0, 4]], np.float64)),
    "float16": ("FP16", np.array([[1.5, -2, 0, 4]], np.float16)),
    "bool": ("BOOL", np.array([[True, False, True, True]])),
    "int8": ("INT8", np.array([[1, -2, 127, -128]], np.int8)),
    "uint8": ("UINT8", np.array([[1, 2, 255, 0]], np.uint8)),
    "int16": ("INT16", np.array([[1, -2, 3, 4]], np.int16)),
    "int32": ("INT32", np.array([[1, -2, 3, 4]], np.int32)),
    "int64": ("INT64", np.array([[1, -(2**62), 3, 4]], np.int64)),
    "uint64": ("UINT64", np.array([[1, 2**63, 3, 4]], np.uint64)),
    "string": ("BYTES", np.array([[b"a", b"", "äh".encode(), b"\xff\0"]], np.object_)),
}


@pytest.mark.parametrize("dtype", VALUES)
def test_every_datatype_comes_back(client: triton.InferenceServerClient, dtype: str) -> None:
    word, array = VALUES[dtype]
    for _ in range(3):  # the second time without protobuf
        result = client.infer(f"echo_{dtype}", [tensor("x0", array, word)])
        np.testing.assert_array_equal(result.as_numpy("y0"), array)
        assert result.get_response().outputs[0].datatype == word


def test_bfloat16_comes_back(client: triton.InferenceServerClient) -> None:
    array = X.astype(ml_dtypes.bfloat16)
    result = client.infer("echo_bfloat16", [tensor("x0", array, "BF16")])
    np.testing.assert_array_equal(np.asarray(result.as_numpy("y0"), np.float32), X)


def test_requests_of_one_form_are_told_apart_by_their_data_alone(client: triton.InferenceServerClient) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(1 + number % 5, 4)).astype(np.float32) for number in range(300)]

    def ask(array: np.ndarray[Any, Any]) -> bool:
        answer = client.infer("echo", [tensor("x0", array, "FP32")], request_id="7" if array.shape[0] == 3 else "")
        return bool((answer.as_numpy("y0") == array).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, arrays))


def test_an_asynchronous_client_is_answered_too(server: Served) -> None:
    async def main() -> None:
        async with triton_aio.InferenceServerClient(server.address) as client:
            arrays = [np.full((1, 4), number, np.float32) for number in range(100)]
            results = await asyncio.gather(*(client.infer("echo", [tensor("x0", each, "FP32")]) for each in arrays))
            for array, result in zip(arrays, results, strict=True):
                np.testing.assert_array_equal(result.as_numpy("y0"), array)

    asyncio.run(main())


def test_several_inputs_and_wanted_outputs_in_the_clients_order(client: triton.InferenceServerClient) -> None:
    x0, x1 = np.ones((2, 4), np.float32), np.arange(8).reshape(2, 4)
    for _ in range(2):
        result = client.infer(
            "two",
            [tensor("x1", x1, "INT64"), tensor("x0", x0, "FP32")],
            outputs=[triton.InferRequestedOutput("y1"), triton.InferRequestedOutput("y0")],
        )
        np.testing.assert_array_equal(result.as_numpy("y0"), x0)
        np.testing.assert_array_equal(result.as_numpy("y1"), x1)
        assert [each.name for each in result.get_response().outputs] == ["y1", "y0"]


def test_the_answer_names_model_version_id_and_device(client: triton.InferenceServerClient) -> None:
    response = client.infer("echo", [tensor("x0", X, "FP32")], request_id="42").get_response()
    assert (response.model_name, response.model_version, response.id) == ("echo", "1", "42")
    assert response.parameters["npuops_device"].string_param == "ort-cpu:0"
    assert response.parameters["npuops_fallback"].bool_param is False


def test_the_best_classes_instead_of_a_tensor(client: triton.InferenceServerClient) -> None:
    wish = triton.InferRequestedOutput("y0", class_count=2)
    array = np.array([[0.25, 3, 1, 2]], np.float32)
    result = client.infer("echo", [tensor("x0", array, "FP32")], outputs=[wish])
    assert result.as_numpy("y0").tolist() == [[b"3.000000:1:one", b"2.000000:3:three"]]


def stub(server: Served, method: str = "ModelInfer") -> Any:
    channel = grpc.insecure_channel(server.address)
    return channel.unary_unary(
        f"/inference.GRPCInferenceService/{method}",
        request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
        response_deserializer=getattr(service_pb2, f"{method}Response").FromString,
    )


TYPED = {
    "float32": ("FP32", "fp32_contents"),
    "float64": ("FP64", "fp64_contents"),
    "bool": ("BOOL", "bool_contents"),
    "int8": ("INT8", "int_contents"),
    "uint8": ("UINT8", "uint_contents"),
    "int16": ("INT16", "int_contents"),
    "int32": ("INT32", "int_contents"),
    "int64": ("INT64", "int64_contents"),
    "uint64": ("UINT64", "uint64_contents"),
}


def typed(dtype: str, values: list[Any], **changed: Any) -> Any:
    word, field = TYPED[dtype]
    request = service_pb2.ModelInferRequest(model_name=f"echo_{dtype}", **changed)
    given = request.inputs.add(name="x0", datatype=word, shape=[1, 4])
    getattr(given.contents, field).extend(values)
    return request


@pytest.mark.parametrize("dtype", TYPED)
def test_typed_contents_are_taken_and_answered_raw(server: Served, dtype: str) -> None:
    array = VALUES[dtype][1]
    response = stub(server)(typed(dtype, array[0].tolist()), timeout=30)
    assert response.raw_output_contents[0] == array.tobytes()


def test_parameters_of_all_five_kinds_are_taken(lab: Lab, server: Served) -> None:
    request = typed("float32", [1, 2, 3, 4])
    request.parameters["a"].bool_param = True
    request.parameters["timeout"].int64_param = 5_000_000
    request.parameters["c"].string_param = "x"
    request.parameters["d"].double_param = 0.5
    request.parameters["priority"].uint64_param = 3
    stub(server)(request, timeout=30)
    job = lab.serving["echo_float32", ""].engine.jobs[-1]
    assert job.priority == Access().priority_of(3)
    assert 4_000_000 < job.deadline_us - job.arrived_us <= 5_000_000


def test_the_deadline_of_the_call_is_the_requests(lab: Lab, server: Served) -> None:
    stub(server)(typed("float32", [1, 2, 3, 4]), timeout=20)
    job = lab.serving["echo_float32", ""].engine.jobs[-1]
    assert 10_000_000 < job.deadline_us - job.arrived_us <= 20_300_000


def spoiled(change: str) -> Any:
    request = typed("float32", [1, 2, 3, 4])
    given = request.inputs[0]
    if change == "raw and typed":
        request.raw_input_contents.append(b"")
    elif change == "no data":
        given.ClearField("contents")
    elif change == "too few":
        given.contents.fp32_contents.pop()
    elif change == "another type":
        given.contents.int_contents.append(1)
    elif change == "a negative size":
        given.shape[0] = -1
    elif change == "an unknown input":
        given.name = "x"
    elif change == "an unknown datatype":
        given.datatype = "FP31"
    elif change == "FP16 typed":
        given.datatype = "FP16"
    elif change == "an unknown output":
        request.outputs.add(name="z")
    elif change == "a parameter without a value":
        request.parameters["x"].Clear()
    elif change == "shared memory":
        given.ClearField("contents")
        given.parameters["shared_memory_region"].string_param = "r"
        given.parameters["shared_memory_byte_size"].int64_param = 16
    elif change == "outputs to shared memory":
        wish = request.outputs.add(name="y0")
        wish.parameters["shared_memory_region"].string_param = "r"
        wish.parameters["shared_memory_byte_size"].int64_param = 16
    else:
        given.ClearField("contents")
        request.raw_input_contents.extend([b"x" * 15] if change == "too few raw bytes" else [b"x" * 16] * 2)
    return request


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("raw and typed", "raw_input_contents"),
        ("no data", "0 elements"),
        ("too few", "3 elements"),
        ("another type", "int_contents"),
        ("a negative size", "-1"),
        ("an unknown input", "x0"),
        ("an unknown datatype", "FP32"),
        ("FP16 typed", "raw"),
        ("an unknown output", "'z'"),
        ("a parameter without a value", "'x'"),
        ("shared memory", "switched off"),
        ("outputs to shared memory", "switched off"),
        ("too few raw bytes", "15"),
        ("too many raw contents", "2 raw_input_contents"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(server: Served, change: str, words: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        stub(server)(spoiled(change), timeout=30)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert words in error.value.details()


def test_a_value_beyond_its_datatype_is_refused(server: Served) -> None:
    with pytest.raises(grpc.RpcError, match="not INT8"):
        stub(server)(typed("int8", [1, 2, 3, 128]), timeout=30)


@pytest.mark.parametrize("message", [b"\xff\xff\xff", b"\x0a\x02\xff\xfe"])
def test_bytes_that_are_no_request_are_refused(server: Served, message: bytes) -> None:
    with pytest.raises(grpc.RpcError) as error:
        stub(server)(message, timeout=30)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_an_unknown_model_is_not_found(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="no model 'nobody'") as error:
        client.infer("nobody", [tensor("x0", X, "FP32")])
    assert error.value.status() == "StatusCode.NOT_FOUND"


def test_a_cold_model_is_woken_by_its_first_request() -> None:
    lab = Lab([], cold=[echo_model("cold", "float32")])
    with lab_served(lab) as it, triton.InferenceServerClient(it.address) as client:
        for _ in range(2):
            result = client.infer("cold", [tensor("x0", X, "FP32")], client_timeout=30)
            np.testing.assert_array_equal(result.as_numpy("y0"), X)


def test_a_new_version_answers_as_soon_as_it_is_served(lab: Lab, server: Served, client: Any) -> None:
    client.infer("two", [tensor("x0", X, "FP32"), tensor("x1", np.ones((1, 4), np.int64), "INT64")])
    other = echo_model("two", "float32", "float32")
    server.run(lambda: lab.serve(other))
    result = client.infer("two", [tensor("x0", X, "FP32"), tensor("x1", X + 1, "FP32")])
    np.testing.assert_array_equal(result.as_numpy("y1"), X + 1)
    with pytest.raises(InferenceServerException, match="INT64"):
        client.infer("two", [tensor("x0", X, "FP32"), tensor("x1", np.ones((1, 4), np.int64), "INT64")])
    server.run(lambda: lab.serve(echo_model("two", "float32", "int64")))


def test_an_engines_error_reaches_the_client() -> None:
    model = echo_model("busy", "float32")
    engine = model.engine = Refusing()
    engine.error = QuotaError("the tenant's share is used up", advice="ask for more", retry_after_s=2)
    with lab_served(Lab([model])) as it:
        request = typed("float32", [1, 2, 3, 4])
        request.model_name = "busy"
        with pytest.raises(grpc.RpcError) as error:
            stub(it)(request, timeout=30)
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(error.value.trailing_metadata())["grpc-retry-pushback-ms"] == "2000"


class Turnstile:
    """A share that counts."""

    def __init__(self) -> None:
        self.inside = 0
        self.total = 0

    def take(self, now_us: int) -> None:
        assert self.try_take(now_us) is None

    def try_take(self, now_us: int) -> None:
        del now_us
        self.inside += 1
        self.total += 1

    def give_back(self) -> None:
        self.inside -= 1


class KeyGate:
    """One key opens it."""

    def __init__(self) -> None:
        self.share = Turnstile()

    def access(self, tenant: str, key: str) -> Access:
        if key != "sesame":
            raise UnauthenticatedError("no such API key")
        return Access(tenant=tenant or "keyed", priority=2, share=self.share)


def test_tenants_and_keys_are_found_in_the_metadata_and_shares_are_given_back() -> None:
    gate = KeyGate()
    lab = Lab([echo_model("echo", "float32")], gate=gate)
    with lab_served(lab) as it, triton.InferenceServerClient(it.address) as client:
        given = [tensor("x0", X, "FP32")]
        for headers in ({}, {"x-api-key": "wrong"}, {"authorization": "Basic sesame"}):
            with pytest.raises(InferenceServerException) as error:
                client.infer("echo", given, headers=headers)
            assert error.value.status() == "StatusCode.UNAUTHENTICATED"
        with pytest.raises(InferenceServerException):
            client.get_model_repository_index()
        assert client.is_server_live()
        client.infer("echo", given, headers={"authorization": "Bearer sesame"})
        client.infer("echo", given, headers={"x-api-key": "sesame", "x-npuops-tenant": "camera"})
        jobs = lab.models[0].engine.jobs
        assert [(job.tenant, job.priority) for job in jobs] == [("keyed", 2), ("camera", 2)]
        assert (gate.share.inside, gate.share.total) == (0, 2)


def test_a_call_that_is_cancelled_is_taken_back_from_the_engine(lab: Lab, server: Served) -> None:
    model = lab.serving["held", ""]
    model.engine.is_held = True
    request = typed("float32", [1, 2, 3, 4])
    request.model_name = "held"
    with pytest.raises(grpc.RpcError) as error:
        stub(server)(request, timeout=0.2)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    server.until(lambda: list(model.engine.cancelled))
    server.run(model.engine.go_on)


@pytest.mark.slow
def test_a_request_leaves_nothing_to_the_garbage_collector(lab: Lab, server: Served) -> None:
    call, request = stub(server), typed("float32", [1, 2, 3, 4]).SerializeToString()
    kinds = (GrpcCall, Http2Stream, Request, Job)

    def alive() -> int:
        return sum(type(each) in kinds for each in gc.get_objects())

    call(request, timeout=30)
    gc.collect()
    gc.disable()
    try:
        before = server.run(alive)
        for _ in range(100):
            call(request, timeout=30)
        lab.serving["echo_float32", ""].engine.jobs.clear()
        assert server.run(alive) <= before
    finally:
        gc.enable()


# -- streams -----------------------------------------------------------------------------------------------------------


def test_a_stream_answers_in_order_and_an_error_does_not_end_it(lab: Lab, server: Served) -> None:
    told: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    model = lab.serving["held", ""]
    model.engine.is_held = True
    with triton.InferenceServerClient(server.address) as client:
        client.start_stream(lambda result, error: told.put((result, error)))
        before = len(model.engine.jobs)
        for number in range(20):
            name = "nobody" if number == 7 else "held"
            client.async_stream_infer(name, [tensor("x0", X + number, "FP32")], request_id=str(number))
        server.until(lambda: len(model.engine.jobs) >= before + 19)
        server.run(model.engine.go_on)  # the last first
        for number in range(20):
            result, error = told.get(timeout=30)
            if number == 7:
                assert "no model 'nobody'" in str(error)
            else:
                assert result.get_response().id == str(number)
                np.testing.assert_array_equal(result.as_numpy("y0"), X + number)
        client.stop_stream()


def test_a_stream_tells_which_answer_is_the_last_to_a_client_that_asks(server: Served) -> None:
    told: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    with triton.InferenceServerClient(server.address) as client:
        client.start_stream(lambda result, error: told.put((result, error)))
        client.async_stream_infer("echo", [tensor("x0", X, "FP32")], enable_empty_final_response=True)
        result, error = told.get(timeout=30)
        assert error is None
        assert result.get_response().parameters["triton_final_response"].bool_param is True
        client.stop_stream()


def test_a_stream_that_its_client_leaves_takes_its_requests_back(lab: Lab, server: Served) -> None:
    model = lab.serving["held", ""]
    model.engine.is_held = True
    before = len(model.engine.jobs), len(model.engine.cancelled)
    client = triton.InferenceServerClient(server.address)
    client.start_stream(lambda **_: None)
    for _ in range(5):
        client.async_stream_infer("held", [tensor("x0", X, "FP32")])
    server.until(lambda: len(model.engine.jobs) >= before[0] + 5)
    client.stop_stream(cancel_requests=True)
    server.until(lambda: len(model.engine.cancelled) >= before[1] + 5)
    client.close()
    server.run(model.engine.go_on)


def test_a_drain_ends_streams_when_their_requests_are_answered() -> None:
    lab = Lab([echo_model("held", "float32")])
    engine = lab.models[0].engine
    engine.is_held = True
    told: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    with lab_served(lab) as it, triton.InferenceServerClient(it.address) as client:
        client.start_stream(lambda result, error: told.put((result, error)))
        client.async_stream_infer("held", [tensor("x0", X, "FP32")], request_id="last")
        it.until(lambda: list(engine.jobs))
        drained = it.drain(30)
        it.run(lambda: None)
        it.run(engine.go_on)
        assert told.get(timeout=30)[0].get_response().id == "last"
        assert "the server stops" in str(told.get(timeout=30)[1])
        drained.result(30)


def test_a_drain_ends_streams_that_were_never_asked_anything_and_those_that_come_late() -> None:
    lab = Lab([echo_model("echo", "float32")])
    with lab_served(lab) as it, triton.InferenceServerClient(it.address) as client:
        told: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        client.start_stream(lambda result, error: told.put((result, error)))
        it.until(lambda: lab.infer._streams)
        it.run(lab.infer.drain)
        assert "the server stops" in str(told.get(timeout=30)[1])
        with triton.InferenceServerClient(it.address) as late:
            late.start_stream(lambda result, error: told.put((result, error)))
            assert "the server stops" in str(told.get(timeout=30)[1])
        assert not lab.infer._streams


def test_a_stream_that_runs_ahead_of_its_model_waits_and_loses_nothing() -> None:
    """However many requests a client sends, no more than 256 of them are understood and kept."""
    lab = Lab([echo_model("held", "float32")])
    engine = lab.models[0].engine
    engine.is_held = True
    told: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    with lab_served(lab) as it, triton.InferenceServerClient(it.address) as client:
        client.start_stream(lambda result, error: told.put((result, error)))
        for number in range(700):
            client.async_stream_infer("held", [tensor("x0", X + number, "FP32")], request_id=str(number))
        it.until(lambda: len(engine.jobs) >= 256)
        it.run(lambda: None)
        assert len(engine.jobs) == 256
        it.run(engine.go_on)
        assert [told.get(timeout=30)[0].get_response().id for _ in range(700)] == [str(n) for n in range(700)]
        client.stop_stream()


def test_a_request_beyond_a_quota_is_refused_and_reported() -> None:
    lab = Lab([echo_model("held", "float32")], gate=TenantGate(Tenants({"default": TenantOptions(concurrency=1)})))
    engine = lab.models[0].engine
    engine.is_held = True
    with lab_served(lab) as it, triton.InferenceServerClient(it.address) as client:
        first = client.async_infer("held", [tensor("x0", X, "FP32")], callback=lambda **_: None)
        it.until(lambda: list(engine.jobs))
        with pytest.raises(InferenceServerException) as error:
            client.infer("held", [tensor("x0", X, "FP32")])
        assert error.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        assert [(type(seen).__name__, seen.model) for seen in lab.seen] == [("RequestShed", "held")]
        it.run(engine.go_on)
        del first
        np.testing.assert_array_equal(client.infer("held", [tensor("x0", X, "FP32")]).as_numpy("y0"), X)


def test_the_deadline_of_a_request_holds_while_its_model_is_loaded() -> None:
    lab = Lab([])

    async def wake(name: str, version: str) -> EchoModel:
        del name, version
        await asyncio.Event().wait()
        raise AssertionError

    lab.infer._wake = wake
    with lab_served(lab) as it, triton.InferenceServerClient(it.address) as client:
        with pytest.raises(InferenceServerException) as error:
            client.infer("cold", [tensor("x0", X, "FP32")], headers={"x-request-timeout-ms": "20"})
        assert error.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        assert "while the model was loaded" in str(error.value)


def test_a_defect_in_answering_ends_one_request_and_the_engine_never_hears_of_it(
    lab: Lab, server: Served, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = lab.serving["held", ""]
    model.engine.is_held = True
    future: queue.SimpleQueue[Any] = queue.SimpleQueue()
    before = len(model.engine.jobs)
    client.async_infer("held", [tensor("x0", X, "FP32")], callback=lambda error, **_: future.put(error))
    server.until(lambda: len(model.engine.jobs) > before)

    def answer() -> None:
        job = model.engine.waiting.pop()
        job.receiver(job, Completion([], (), "ort-cpu:0", fell_back=False))  # too few outputs
        model.engine.is_held = False

    server.run(answer)
    error = future.get(timeout=30)
    assert "IndexError" in str(error)
    assert "answering failed" in caplog.text
    np.testing.assert_array_equal(client.infer("echo", [tensor("x0", X, "FP32")]).as_numpy("y0"), X)
