"""What all four forms of the real tritonclient get from `npuops serve`, as a user starts it."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from conformance_models import KINDS as DATATYPES
from conformance_models import conformance_repository
from oip_clients import KINDS, Client, oip_client
from serve_process import Served, served

pytestmark = pytest.mark.slow
"""Whole servers and clients as processes: minutes together; CI runs them."""

RNG = np.random.default_rng(7)
DTYPES: dict[str, Any] = {
    "BOOL": bool,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BF16": ml_dtypes.bfloat16,
    "BYTES": object,
    **{f"{sign}INT{bits}": np.dtype(f"{sign.lower()}int{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    repository = conformance_repository(tmp_path_factory.mktemp("conformance"))
    scratch = tmp_path_factory.mktemp("scratch")
    with served(repository, scratch, "--client-shared-memory", "--no-watch") as it:
        it.all_ready()
        yield it
        assert it.end() == 0


@pytest.fixture(params=KINDS)
def client(server: Served, request: pytest.FixtureRequest) -> Iterator[Client]:
    with oip_client(request.param, server.http_port, server.grpc_port) as it:
        yield it


def values(word: str, rows: int = 2) -> Any:
    """Every datatype at its ends, and where it is odd."""
    if word == "BYTES":
        return np.array([[b"", "grün".encode(), b"a" * 1000], [b"\x00\x01", b'"quoted"', b"x"]] * rows, object)[:rows]
    if word == "BOOL":
        return RNG.integers(0, 2, (rows, 3)).astype(bool)
    dtype = np.dtype(DTYPES[word])
    if dtype.kind in "iu":
        ends = np.iinfo(dtype)
        return np.array([[ends.min, 1, ends.max]] * rows, dtype)
    return RNG.normal(size=(rows, 3)).astype(dtype)


def simple(client: Client, rows: int = 1, *, binary: bool = True) -> tuple[list[Any], Any, Any]:
    a, b = (RNG.integers(-99, 99, (rows, 16), np.int32) for _ in range(2))
    return [client.input("INPUT0", a, "INT32", binary=binary), client.input("INPUT1", b, "INT32", binary=binary)], a, b


def refused(error: pytest.ExceptionInfo[InferenceServerException], http: str, grpc: str) -> str:
    """The message of an error that has this status in either protocol."""
    assert error.value.status() in {http, f"StatusCode.{grpc}"}, error.value
    return str(error.value.message())


def test_the_server_is_live_ready_and_says_what_it_is(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    told = client.document("get_server_metadata")
    assert told["name"] == "npuops"
    assert {"model_repository", "binary_tensor_data", "statistics", "system_shared_memory"} <= set(told["extensions"])


def test_ready_means_the_stable_versions_and_a_broken_canary_changes_nothing(client: Client) -> None:
    assert client.is_server_ready()
    assert client.is_model_ready("half")
    assert client.is_model_ready("half", "1")
    assert not client.is_model_ready("half", "2")
    assert not client.is_model_ready("absent")
    assert client.is_model_ready("cold")


def test_metadata_and_configuration_with_and_without_a_version(client: Client) -> None:
    for version in ("", "1", "3"):
        told = client.document("get_model_metadata", "simple", version)
        assert (told["name"], told["versions"]) == ("simple", ["1", "3"])
        assert [(each["name"], each["datatype"]) for each in told["inputs"]] == [
            ("INPUT0", "INT32"),
            ("INPUT1", "INT32"),
        ]
        assert [int(size) for size in told["outputs"][0]["shape"]] == [-1, 16]
        config = client.document("get_model_config", "simple", version)
        config = config.get("config", config)
        assert (config["name"], config["input"][0]["data_type"]) == ("simple", "TYPE_INT32")
        assert int(config["max_batch_size"]) > 1
        assert [int(size) for size in config["input"][0]["dims"]] == [16]
    words = {each["datatype"] for each in client.document("get_model_metadata", "every")["inputs"]}
    assert words == set(DATATYPES)


@pytest.mark.parametrize("binary", [True, False])
def test_inference_answers_every_version_the_same_and_says_which(client: Client, binary: bool) -> None:
    for version in ("", "1", "3"):
        inputs, a, b = simple(client, 3, binary=binary)
        outputs = [client.output("OUTPUT1", binary=binary), client.output("OUTPUT0", binary=not binary)]
        result = client.infer("simple", inputs, version, outputs=outputs, request_id="my id")
        assert np.array_equal(result.as_numpy("OUTPUT0"), a + b)
        assert np.array_equal(result.as_numpy("OUTPUT1"), a - b)
        response = result.get_response(as_json=True) if client.is_grpc else result.get_response()
        assert (response["model_name"], response["model_version"]) == ("simple", version or "3")
        assert response["id"] == "my id"
        assert "npuops_device" in response["parameters"]


def test_outputs_that_nobody_names_all_come(client: Client) -> None:
    inputs, a, b = simple(client)
    result = client.infer("simple", inputs)
    assert np.array_equal(result.as_numpy("OUTPUT0"), a + b)
    assert np.array_equal(result.as_numpy("OUTPUT1"), a - b)


@pytest.mark.parametrize("mixed", [False, True])
def test_every_datatype_goes_both_ways(client: Client, mixed: bool) -> None:
    given = {word: values(word) for word in DATATYPES}
    texts = [word for word in DATATYPES if mixed and word != "FP16"]
    # JSON has no bytes that are not text: the element \x00\x01 is, as its escape.
    inputs = [client.input(f"in_{word}", given[word], word, binary=word not in texts) for word in DATATYPES]
    outputs = [client.output(f"out_{word}", binary=word not in texts) for word in DATATYPES]
    result = client.infer("every", inputs, outputs=outputs)
    for word in DATATYPES:
        got = result.as_numpy(f"out_{word}")
        want = given[word]
        if word == "BYTES":
            got = np.array([each if isinstance(each, bytes) else each.encode() for each in got.reshape(-1)], object)
            assert got.tolist() == want.reshape(-1).tolist()
        else:
            assert np.array_equal(got, want), word


def test_bfloat16_goes_both_ways_and_is_told_so(client: Client) -> None:
    told = client.document("get_model_metadata", "brain")
    assert [each["datatype"] for each in (*told["inputs"], *told["outputs"])] == ["BF16", "BF16"]
    given = values("BF16")
    result = client.infer("brain", [client.input("x", given, "BF16")], outputs=[client.output("y")])
    assert np.array_equal(result.as_numpy("y"), given)


def test_a_client_gets_the_best_classes_for_the_asking(client: Client) -> None:
    x = RNG.normal(size=(2, 1, 28, 28)).astype(np.float32)
    given = [client.input("x", x, "FP32")]
    scores = client.infer("tiny", given).as_numpy("y")
    best = client.infer("tiny", given, outputs=[client.output("y", classes=3)]).as_numpy("y")
    for row in (0, 1):
        told = [each.decode().split(":") for each in best[row]]
        assert [int(index) for _, index, *_ in told] == np.argsort(-scores[row])[:3].tolist()
        assert [float(value) for value, *_ in told] == pytest.approx(np.sort(scores[row])[::-1][:3], rel=1e-4)


@pytest.mark.parametrize("request_algorithm", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_algorithm", [None, "gzip", "deflate"])
def test_compression_both_ways(server: Served, request_algorithm: str | None, response_algorithm: str | None) -> None:
    for kind in ("http", "http-aio"):
        with oip_client(kind, server.http_port, server.grpc_port) as client:
            for width in (3, 100_000):
                x = RNG.normal(size=(2, width)).astype(np.float32)
                for _ in range(2):
                    result = client.infer(
                        "wide",
                        [client.input("x", x, "FP32")],
                        request_compression_algorithm=request_algorithm,
                        response_compression_algorithm=response_algorithm,
                    )
                    assert np.array_equal(result.as_numpy("y"), x)


def test_priorities_timeouts_and_parameters_are_taken(client: Client) -> None:
    inputs, a, b = simple(client)
    result = client.infer("simple", inputs, priority=2, timeout=60_000_000, parameters={"colour": "red", "n": 3})
    assert np.array_equal(result.as_numpy("OUTPUT0"), a + b)
    with pytest.raises(InferenceServerException) as error:
        client.infer("simple", inputs, timeout=1)
    assert "deadline" in refused(error, "504", "DEADLINE_EXCEEDED")
    headers = {"x-request-timeout-ms": "0.001"}
    with pytest.raises(InferenceServerException) as error:
        client.infer("simple", inputs, headers=headers)
    assert "deadline" in refused(error, "504", "DEADLINE_EXCEEDED")
    with pytest.raises(InferenceServerException) as error:
        client.infer("simple", inputs, sequence_id=5, sequence_start=True)
    assert "sequences" in refused(error, "400", "INVALID_ARGUMENT")
    with pytest.raises(InferenceServerException) as error:
        client.infer("simple", inputs, parameters={"npuops_fallbak": "forbid"})
    assert "npuops_fallback" in refused(error, "400", "INVALID_ARGUMENT")
    assert client.infer("simple", inputs, parameters={"npuops_fallback": "forbid"}) is not None


def test_requests_that_do_not_fit_say_what_is_wrong(client: Client) -> None:
    inputs, _, _ = simple(client)
    odd = client.input("INPUT0", np.zeros((1, 15), np.int32), "INT32")
    other = client.input("INPUT0", np.zeros((1, 16), np.float32), "FP32")
    named = client.input("INPUT7", np.zeros((1, 16), np.int32), "INT32")
    cases: list[tuple[list[Any], dict[str, Any], str]] = [
        (inputs[:1], {}, "'INPUT1' is missing"),
        ([odd, inputs[1]], {}, "INPUT0"),
        ([other, inputs[1]], {}, "the model takes INT32"),
        ([named, inputs[1]], {}, "no input 'INPUT7'"),
        ([inputs[0], inputs[0]], {}, "twice"),
        (inputs, {"outputs": [client.output("OUTPUT7")]}, "no output 'OUTPUT7'"),
        (inputs, {"priority": 2**40}, "priority"),
    ]
    for given, more, words in cases:
        with pytest.raises(InferenceServerException) as error:
            client.infer("simple", given, **more)
        assert words in refused(error, "400", "INVALID_ARGUMENT")


def test_a_model_or_version_that_is_not_there_is_not_found(client: Client) -> None:
    inputs, _, _ = simple(client)
    for model, version, words in (("simpel", "", "simple"), ("simple", "9", "'9'"), ("half", "2", "half")):
        for call in (
            lambda model=model, version=version: client.infer(model, inputs, version),
            lambda model=model, version=version: client.get_model_metadata(model, version),
            lambda model=model, version=version: client.get_model_config(model, version),
            lambda model=model, version=version: client.get_inference_statistics(model, version),
        ):
            with pytest.raises(InferenceServerException) as error:
                call()
            assert words in refused(error, "404", "NOT_FOUND")
    for name in ("../simple", "a/b", "%2e%2e", "simple/../../etc", "n" * 5000, "☃", "a b", "\x00"):
        with pytest.raises((InferenceServerException, ValueError)):
            client.load_model(name)
        assert not client.is_model_ready(name)


def test_the_repository_is_listed_loaded_and_unloaded(client: Client) -> None:
    index = client.document("get_model_repository_index")
    lines = {(each["name"], each.get("version", "")): each for each in (index["models"] if client.is_grpc else index)}
    assert lines["simple", "3"]["state"] == "READY"
    assert lines["half", "2"]["state"] == "UNAVAILABLE"
    assert lines["half", "2"]["reason"]
    client.unload_model("simple")
    assert not client.is_model_ready("simple")
    assert client.is_server_ready()
    inputs, a, b = simple(client)
    with pytest.raises(InferenceServerException) as error:
        client.infer("simple", inputs)
    assert "load it" in refused(error, "404", "NOT_FOUND")
    client.load_model("simple", config='{"versions": ["1"]}')
    assert client.is_model_ready("simple", "1")
    assert not client.is_model_ready("simple", "3")
    with pytest.raises(InferenceServerException) as error:
        client.load_model("simple", config='{"versoins": "all"}')
    assert "did you mean 'versions'" in refused(error, "400", "INVALID_ARGUMENT")
    with pytest.raises(InferenceServerException) as error:
        client.load_model("simple", config="{}", files={"file:1/model.onnx": b"x"})
    assert "file" in refused(error, "400", "INVALID_ARGUMENT")
    client.unload_model("simple", unload_dependents=True)
    client.load_model("simple")
    assert client.is_model_ready("simple", "3")
    assert np.array_equal(client.infer("simple", inputs).as_numpy("OUTPUT0"), a + b)


def test_a_cold_model_answers_its_first_request(client: Client) -> None:
    given = [client.input("x", np.zeros((1, 1, 28, 28), np.float32), "FP32")]
    assert client.infer("cold", given).as_numpy("y").shape == (1, 10)
    client.unload_model("cold")
    client.load_model("cold")


def test_statistics_count_what_was_answered(client: Client) -> None:
    def told() -> Any:
        stats = client.document("get_inference_statistics", "every", "1")
        (one,) = stats["model_stats"]
        assert (one["name"], one["version"]) == ("every", "1")
        return one

    before = int(told().get("inference_count", 0))
    inputs = [client.input(f"in_{word}", values(word), word) for word in DATATYPES]
    client.infer("every", inputs)
    after = told()
    assert int(after["inference_count"]) == before + 2  # rows
    assert int(after["inference_stats"]["success"]["count"]) >= 1
    assert int(after["inference_stats"]["compute_infer"]["ns"]) > 0
    everything = client.document("get_inference_statistics")
    assert {each["name"] for each in everything["model_stats"]} >= {"simple", "every", "tiny", "half"}


def test_a_folder_that_is_no_model_keeps_nobody_from_the_statistics_of_the_others(client: Client) -> None:
    index = client.document("get_model_repository_index")
    names = {line["name"] for line in (index["models"] if client.is_grpc else index)}
    assert "no name" in names
    assert "tiny" in {each["name"] for each in client.document("get_inference_statistics")["model_stats"]}


def test_tensors_go_through_shared_memory(client: Client) -> None:
    assert client.document("get_system_shared_memory_status") in ([], {}, {"regions": {}})
    _, a, b = simple(client)
    key = f"/w2b-{client.kind}"
    region = shm.create_shared_memory_region("all", key, a.nbytes * 4)
    try:
        shm.set_shared_memory_region(region, [a, b])
        client.register_system_shared_memory("all", key, a.nbytes * 4)
        with pytest.raises(InferenceServerException) as error:
            client.register_system_shared_memory("all", key, a.nbytes * 4)
        assert "unregister it first" in refused(error, "400", "INVALID_ARGUMENT")
        status = client.document("get_system_shared_memory_status", "all")
        (one,) = status["regions"].values() if isinstance(status, dict) else status
        assert (one["name"], int(one["byte_size"])) == ("all", a.nbytes * 4)
        inputs = [client.module.InferInput(f"INPUT{at}", [1, 16], "INT32") for at in (0, 1)]
        outputs = [client.module.InferRequestedOutput(f"OUTPUT{at}") for at in (0, 1)]
        for at in (0, 1):
            inputs[at].set_shared_memory("all", a.nbytes, at * a.nbytes)
            outputs[at].set_shared_memory("all", a.nbytes, (2 + at) * a.nbytes)
        result = client.infer("simple", inputs, outputs=outputs)
        assert result.get_output("OUTPUT0") is not None
        assert np.array_equal(shm.get_contents_as_numpy(region, np.int32, [1, 16], 2 * a.nbytes), a + b)
        assert np.array_equal(shm.get_contents_as_numpy(region, np.int32, [1, 16], 3 * a.nbytes), a - b)
        outputs[0].set_shared_memory("all", a.nbytes, 4 * a.nbytes)
        with pytest.raises(InferenceServerException) as error:
            client.infer("simple", inputs, outputs=outputs)
        assert "beyond" in refused(error, "400", "INVALID_ARGUMENT")
        client.unregister_system_shared_memory("all")
        with pytest.raises(InferenceServerException) as error:
            client.infer("simple", inputs)
        refused(error, "404", "NOT_FOUND")
        client.register_system_shared_memory("all", key, a.nbytes)
        client.unregister_system_shared_memory()
    finally:
        shm.destroy_shared_memory_region(region)
    with pytest.raises(InferenceServerException) as error:
        client.register_cuda_shared_memory("gpu", b"aGFuZGxl", 0, 64)
    assert "system shared memory" in refused(error, "400", "INVALID_ARGUMENT")


def test_traces_and_logs_are_not_set_over_the_network_and_that_is_said(client: Client) -> None:
    for call in (
        client.get_trace_settings,
        lambda: client.get_trace_settings("simple"),
        lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
        lambda: client.update_trace_settings("simple", settings={"trace_level": ["TIMESTAMPS"]}),
        client.get_log_settings,
        lambda: client.update_log_settings({"log_info": True}),
    ):
        with pytest.raises(InferenceServerException) as error:
            call()
        assert "configuration" in refused(error, "501", "UNIMPLEMENTED")


def test_a_server_may_open_as_many_connections_as_its_limit_says(server: Served) -> None:
    soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    assert soft >= min(10_000, hard)


def test_many_asynchronous_requests_of_the_blocking_clients_get_their_own_answers(server: Served) -> None:
    with oip_client("http", server.http_port, server.grpc_port) as client:
        pending = []
        for _ in range(50):
            inputs, a, b = simple(client)
            pending.append((client.async_infer("simple", inputs), a, b))
        for handle, a, b in pending:
            result = handle.get_result()
            assert np.array_equal(result.as_numpy("OUTPUT0"), a + b)
            assert np.array_equal(result.as_numpy("OUTPUT1"), a - b)
    assert np_to_triton_dtype(np.int32) == "INT32"


def test_kserves_own_client_runs_its_whole_surface_over_rest_and_grpc(server: Served) -> None:
    python = os.environ.get("NPUOPS_KSERVE_PYTHON", "")
    if not python:
        pytest.skip("NPUOPS_KSERVE_PYTHON is not set: tests/requirements-kserve.txt says how to make that environment")
    script = Path(__file__).parent / "kserve_client.py"
    done = subprocess.run(
        [python, "-W", "ignore", script, str(server.http_port), str(server.grpc_port)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rest, rpc = done.stdout.splitlines()[-2:]
    assert rest.count("infer binary") == 4
    assert rest.endswith("404")
    assert rpc.count("infer raw") == 2
    assert rpc.endswith("NOT_FOUND")
