from __future__ import annotations

import queue
from collections.abc import Iterator
from hashlib import sha256
from multiprocessing import shared_memory

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from grpc_models import Lab, echo_model, lab_served
from grpc_served import Served
from npuops.runtime.tenant_options import TenantOptions, Tenants
from npuops.server.access import TenantGate
from npuops.server.inference_pb import HEALTH_MESSAGES
from npuops.server.shared_memory import Regions

X = np.array([[1.0, 2.0, -3.5, 0.25]], np.float32)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab([echo_model("echo", "float32")])


@pytest.fixture(scope="module")
def server(lab: Lab) -> Iterator[Served]:
    with lab_served(lab) as it:
        yield it


@pytest.fixture
def client(server: Served) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as it:
        yield it


def test_the_server_tells_of_itself(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert (metadata.name, list(metadata.extensions)) == ("npuops", ["statistics"])


def test_a_model_is_told_of(client: triton.InferenceServerClient) -> None:
    assert client.is_model_ready("echo")
    assert client.is_model_ready("echo", "1")
    assert not client.is_model_ready("nobody")
    metadata = client.get_model_metadata("echo")
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [("x0", "FP32", [-1, 4])]
    config = client.get_model_config("echo").config
    assert (config.max_batch_size, config.input[0].data_type, list(config.input[0].dims)) == (8, 11, [4])
    assert list(config.version_policy.specific.versions) == [1]
    assert config.HasField("dynamic_batching")
    with pytest.raises(InferenceServerException, match="nobody"):
        client.get_model_metadata("nobody")


def test_statistics_have_large_numbers(client: triton.InferenceServerClient) -> None:
    (found,) = client.get_inference_statistics("echo").model_stats
    assert found.inference_stats.queue.ns == 2**40


def test_the_repository_is_listed_and_told_to_load(lab: Lab, client: triton.InferenceServerClient) -> None:
    assert [each.name for each in client.get_model_repository_index().models] == ["echo", "bad"]
    client.load_model("echo", config='{"a": 1}', files={"file:1/model": b"\x00\xff"})
    client.unload_model("echo", unload_dependents=True)
    assert lab.loads == [
        ("load", "echo", {"config": '{"a": 1}', "file:1/model": b"\x00\xff"}),
        ("unload", "echo", {"unload_dependents": True}),
    ]
    with pytest.raises(InferenceServerException, match="absent") as error:
        client.load_model("absent")
    assert error.value.status() == "StatusCode.NOT_FOUND"


def test_shared_memory_is_off_by_default(client: triton.InferenceServerClient) -> None:
    for act in (
        client.get_system_shared_memory_status,
        lambda: client.register_system_shared_memory("r", "/r", 16),
        client.unregister_system_shared_memory,
    ):
        with pytest.raises(InferenceServerException, match="off on this server"):
            act()


def test_cuda_memory_and_settings_over_the_network_are_refused_in_words(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="CUDA"):
        client.get_cuda_shared_memory_status()
    for act in (client.get_trace_settings, client.get_log_settings):
        with pytest.raises(InferenceServerException, match="configuration file") as error:
            act()
        assert error.value.status() == "StatusCode.UNIMPLEMENTED"


def test_tensors_pass_through_shared_memory_where_that_is_on() -> None:
    memory = shared_memory.SharedMemory(create=True, size=64)
    try:
        memory.buf[:16] = X.tobytes()
        with (
            lab_served(Lab([echo_model("echo", "float32")], regions=Regions())) as it,
            triton.InferenceServerClient(it.address) as client,
        ):
            client.register_system_shared_memory("r", f"/{memory.name}", 64)
            (status,) = client.get_system_shared_memory_status().regions.values()
            assert (status.name, status.byte_size) == ("r", 64)
            given = triton.InferInput("x0", [1, 4], "FP32")
            given.set_shared_memory("r", 16)
            wanted = triton.InferRequestedOutput("y0")
            wanted.set_shared_memory("r", 16, offset=32)
            response = client.infer("echo", [given], outputs=[wanted]).get_response()
            assert bytes(memory.buf[32:48]) == X.tobytes()
            assert list(response.raw_output_contents) == []
            assert response.outputs[0].parameters["shared_memory_byte_size"].int64_param == 16
            np.testing.assert_array_equal(client.infer("echo", [given]).as_numpy("y0"), X)
            client.unregister_system_shared_memory("r")
            with pytest.raises(InferenceServerException, match="register it first"):
                client.infer("echo", [given])
    finally:
        memory.close()
        memory.unlink()


# -- health ------------------------------------------------------------------------------------------------------------


def test_health_is_what_readiness_is(lab: Lab, server: Served) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService", "echo"):
            assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30).status == 1
        with pytest.raises(grpc.RpcError) as error:
            stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=30)
        assert error.value.code() == grpc.StatusCode.NOT_FOUND
        listed = channel.unary_unary(
            "/grpc.health.v1.Health/List", response_deserializer=HEALTH_MESSAGES["HealthListResponse"].FromString
        )(b"", timeout=30)
        assert {name: each.status for name, each in listed.statuses.items()} == {
            "": 1,
            "inference.GRPCInferenceService": 1,
            "echo": 1,
        }
        lab.ready = False
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=30).status == 2
        lab.ready = True


def test_a_watcher_is_told_of_each_change_and_of_the_end() -> None:
    lab = Lab([echo_model("echo", "float32")])
    with lab_served(lab) as it, grpc.insecure_channel(it.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        told: queue.SimpleQueue[int] = queue.SimpleQueue()
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="echo"), timeout=60)
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=60)
        assert next(unknown).status == 3
        told.put(next(watch).status)
        lab.ready = False
        told.put(next(watch).status)
        lab.ready = True
        told.put(next(watch).status)
        it.drain(30).result(30)
        assert [told.get() for _ in range(3)] == [1, 2, 1]
        assert [each.status for each in watch] == [2]


def test_who_has_no_key_learns_whether_the_server_is_ready_and_no_models_name() -> None:
    gate = TenantGate(Tenants({"a": TenantOptions(api_key_sha256=(sha256(b"sesame").hexdigest(),))}))
    with (
        lab_served(Lab([echo_model("echo", "float32")], gate=gate)) as it,
        grpc.insecure_channel(it.address) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService"):
            assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30).status == 1
        request = health_pb2.HealthCheckRequest(service="echo")
        names = channel.unary_unary("/grpc.health.v1.Health/List")
        for ask in (
            lambda: stub.Check(request, timeout=30),
            lambda: next(stub.Watch(request, timeout=30)),
            lambda: names(b"", timeout=30),
        ):
            with pytest.raises(grpc.RpcError) as error:
                ask()
            assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
        key = (("authorization", "Bearer sesame"),)
        assert stub.Check(request, metadata=key, timeout=30).status == 1
        assert b"echo" in names(b"", metadata=key, timeout=30)


def test_who_begins_to_watch_a_server_that_stops_is_told_so_and_does_not_keep_it() -> None:
    lab = Lab([echo_model("echo", "float32")])
    with lab_served(lab) as it, grpc.insecure_channel(it.address) as channel:
        it.run(lab.health.stop)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="echo"), timeout=30)
        assert [each.status for each in watch] == [2]
