"""`npuops serve` as a user meets it: what it says, how it ends, and what it leaves behind, which is nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from command_line import npuops
from npuops.artifacts.bundle import pack
from npuops.errors import StorageError
from running_server import wait_for
from serve_process import COMMAND, infer_request, load, served
from served_artifacts import ort_artifact, tiny_cnn
from virtual_devices import is_alive

pytestmark = pytest.mark.slow
"""Whole servers and clients as processes: minutes together; CI runs them."""

EVERYWHERE = "0.0.0.0"  # noqa: S104 - the test is about it
X = np.zeros((1, 1, 28, 28), np.float32)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    return ort_artifact(folder / "tiny", tiny_cnn(folder / "tiny.onnx")).root


@pytest.fixture
def repository(artifact: Path, tmp_path: Path) -> Path:
    shutil.copytree(artifact, tmp_path / "repo" / "tiny" / "1")
    return tmp_path / "repo"


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith("npuops")]


def test_one_artifact_is_a_model_of_its_name_and_takes_the_options_of_a_model(artifact: Path, tmp_path: Path) -> None:
    flags = ("--inline", "never", "--max-rows", "4", "--budget-ms", "3", "--fallback", "forbid")
    with served(artifact, tmp_path / "tmp", *flags) as server:
        server.ready("tiny")
        status, config = server.http("GET", "/v2/models/tiny/config")
        assert (status, json.loads(config)["max_batch_size"]) == (200, 4)
        body, headers = infer_request(X)
        assert server.http("POST", "/v2/models/tiny/infer", body, headers)[0] == 200
        assert server.end() == 0


def test_options_of_a_model_are_refused_for_a_repository(repository: Path) -> None:
    said = npuops("serve", repository, "--http-port", "0", "--no-grpc", "--max-rows", "4", code=2)
    assert "is a repository" in said
    assert "model.toml" in said


@pytest.mark.parametrize(
    ("flag", "words"),
    [("--inline=sometimes", "inline"), ("--fallback=maybe", "maybe"), ("--http-port=70000", "http_port")],
)
def test_an_impossible_option_is_refused_before_anything_starts(artifact: Path, flag: str, words: str) -> None:
    assert words in npuops("serve", artifact, flag, code=2)


def test_nothing_at_the_path_is_an_error_that_says_what_to_give(tmp_path: Path) -> None:
    said = npuops("serve", tmp_path / "nowhere", "--http-port", "0", code=2)
    assert "there is nothing at" in said
    assert "a folder of models" in said


@pytest.mark.parametrize("wrong", [("nowhere",), (".", "--http-port", "soon"), (".", "--http-port", "70000"), ()])
def test_what_keeps_it_from_starting_is_one_line_of_json_as_all_that_it_says(
    wrong: tuple[str, ...], tmp_path: Path
) -> None:
    paths = [str(tmp_path / word) if word in {".", "nowhere"} else word for word in wrong]
    line, *rest = npuops("serve", "--json", *paths, code=2).splitlines()
    assert rest == []
    said = json.loads(line)
    assert (said["schema"], said["event"]) == ("npuops.serve/1", "Failed")
    assert said["detail"]["error"] in {"UsageError", "OptionError"}
    assert said["detail"]["message"]


def test_an_empty_repository_is_served_and_says_how_to_fill_it(repository: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with served(empty, tmp_path / "tmp") as server:
        assert server.heard("Empty") == {"source": str(empty)}
        assert server.http("GET", "/v2/health/live")[0] == 200
        shutil.copytree(repository / "tiny", empty / "tiny")
        server.process.send_signal(signal.SIGHUP)
        server.ready("tiny")
        assert server.end() == 0


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_port_that_is_taken_ends_the_server_with_advice_and_without_a_trace(
    artifact: Path, tmp_path: Path, protocol: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ports = {"http": "0", "grpc": "0", protocol: port}
        scratch = tmp_path / "tmp"
        scratch.mkdir()
        said = npuops(
            "serve", artifact, "--http-port", ports["http"], "--grpc-port", ports["grpc"], code=2, TMPDIR=str(scratch)
        )
    assert port in said
    assert f"--{protocol}-port" in said
    assert left_in(scratch) == []


def test_a_broken_artifact_is_told_and_hides_no_other(repository: Path, tmp_path: Path) -> None:
    broken = repository / "broken" / "1"
    shutil.copytree(repository / "tiny" / "1", broken)
    with (broken / json.loads((broken / "manifest.json").read_text())["entry"]).open("r+b") as file:
        file.write(b"\0\0\0\0")
    with served(repository, tmp_path / "tmp") as server:
        server.ready("tiny")
        told = server.heard("VersionChanged", model="broken", event="failed")
        assert "sha256" in told["reason"] or "digest" in told["reason"], told
        assert server.http("GET", "/v2/health/ready")[0] == 503
        assert server.http("GET", "/v2/models/tiny/ready")[0] == 200
        assert server.end() == 0


def test_a_name_that_is_no_text_is_told_and_hides_no_other(repository: Path, tmp_path: Path) -> None:
    os.mkdir(os.fsencode(repository) + b"/bad\xff")  # noqa: PTH102 - a name in bytes
    with served(repository, tmp_path / "tmp") as server:
        server.ready("tiny")
        assert "bad" in server.heard("Warned")["message"]
        assert server.http("POST", "/v2/repository/index")[0] == 200
        assert server.end() == 0


def test_sighup_reads_the_options_again_under_load_and_a_wrong_file_changes_nothing(
    repository: Path, tmp_path: Path
) -> None:
    config = tmp_path / "serve.toml"
    config.write_text("unknown_tenants = 'share'\n")
    with served(repository, tmp_path / "tmp", "--config", str(config), "--no-watch") as server:
        server.ready("tiny")
        body, headers = infer_request(X)
        stranger = {**headers, "X-Npuops-Tenant": "stranger"}
        with load(server.http_port, "tiny", X) as told:
            wait_for(lambda: len(told.answers) > 50, "no answers")
            assert server.http("POST", "/v2/models/tiny/infer", body, stranger)[0] == 200
            config.write_text("unknown_tenants = 'refuse'\nhost = '127.0.0.2'\n")
            shutil.copytree(repository / "tiny", repository / "other")
            server.process.send_signal(signal.SIGHUP)
            assert server.heard("Configured") == {"restart": ["host"]}
            assert server.http("POST", "/v2/models/tiny/infer", body, stranger)[0] == 403
            server.ready("other")
            config.write_text("unknown_tenant = 'share'\n")
            server.process.send_signal(signal.SIGHUP)
            warned = server.heard("Warned", advice="did you mean 'unknown_tenants'?")
            assert "stay as they are" in warned["message"]
            assert server.http("POST", "/v2/models/tiny/infer", body, stranger)[0] == 403
        assert told.problems == []
        assert server.end() == 0


def test_an_access_log_that_cannot_be_written_is_refused_before_anything_starts(artifact: Path, tmp_path: Path) -> None:
    said = npuops(
        "serve", artifact, "--http-port=0", "--access-log", tmp_path / "nowhere" / "log", code=StorageError.exit_code
    )
    assert "the access log" in said


def test_the_access_log_and_the_events_may_share_standard_output(artifact: Path, tmp_path: Path) -> None:
    with served(artifact, tmp_path / "tmp", "--access-log", "-") as server:
        server.ready("tiny")
        assert server.http("GET", "/v2")[0] == 200
        wait_for(lambda: [line for line in server.said if line.get("url.path") == "/v2"], "no line of the log")
        assert server.end() == 0
        assert server.find("Ended")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_answers_what_is_under_way_and_ends_with_0(
    artifact: Path, tmp_path: Path, number: int
) -> None:
    with served(artifact, tmp_path / "tmp") as server:
        server.ready("tiny")
        with load(server.http_port, "tiny", X) as told:
            wait_for(lambda: len(told.answers) > 200, "no answers")
            family = server.family()
            assert server.end(number) == 0
        assert told.problems == []
        assert len(set(told.answers)) == 1
        assert told.refused > 0
        assert server.find("Ending")
        assert server.find("Ended")
        assert [pid for pid in family if is_alive(pid)] == []
        assert left_in(server.scratch) == []


def test_a_signal_under_grpc_load_answers_what_is_under_way(artifact: Path, tmp_path: Path) -> None:
    answers: list[object] = []
    problems: list[str] = []

    def client(port: int) -> None:
        tensor = grpc_client.InferInput("x", X.shape, "FP32")
        tensor.set_data_from_numpy(X)
        with grpc_client.InferenceServerClient(f"127.0.0.1:{port}") as asking:
            while True:
                try:
                    answers.append(asking.infer("tiny", [tensor]))
                except InferenceServerException as error:
                    problems.append(f"{error.status()} {error.message()}")
                    return

    with served(artifact, tmp_path / "tmp") as server:
        server.ready("tiny")
        threads = [threading.Thread(target=client, args=(server.grpc_port,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(answers) > 100, "no answers")
        assert server.end() == 0
        for thread in threads:
            thread.join(60)
    # A call after the end finds nobody who listens; none was broken off.
    assert len(problems) == 4
    for problem in problems:
        assert problem.startswith("StatusCode.UNAVAILABLE"), problem
        assert "failed to connect" in problem, problem


def test_a_second_signal_ends_at_once_whatever_is_under_way(artifact: Path, tmp_path: Path) -> None:
    config = tmp_path / "serve.toml"
    config.write_text("drain_s = 600.0\n[limits]\nbody_s = 600.0\n")
    with served(artifact, tmp_path / "tmp", "--config", str(config)) as server:
        server.ready("tiny")
        with socket.create_connection(("127.0.0.1", server.http_port)) as client:
            client.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
            wait_for(lambda: server.http("GET", "/v2/health/live")[0] == 200, "not live")
            family = server.family()
            server.process.send_signal(signal.SIGTERM)
            server.heard("Ending")
            assert server.end() == 128 + signal.SIGTERM
        wait_for(lambda: not [pid for pid in family if is_alive(pid)], "a process is left")
        wait_for(lambda: left_in(server.scratch) == [], "a folder is left")


def test_sigkill_leaves_no_process_no_shared_memory_and_no_folder(artifact: Path, tmp_path: Path) -> None:
    bundle = pack(artifact, tmp_path / "tiny.npuart")
    with served(bundle, tmp_path / "tmp") as server:
        server.ready("tiny")
        with load(server.http_port, "tiny", X, clients=1) as told:
            wait_for(lambda: told.answers, "no answers")
            family = server.family()
            assert len(family) > 1
            assert server.end(signal.SIGKILL) == -signal.SIGKILL
        wait_for(lambda: not [pid for pid in family if is_alive(pid)], "a process is left")
        wait_for(lambda: left_in(server.scratch) == [], "a folder is left")
    shared = Path("/dev/shm")  # noqa: S108 - where shared memory has its names
    assert [path.name for path in shared.iterdir() if "npuops" in path.name] == []


def test_people_are_told_in_words(artifact: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "serve", str(artifact), "--http-port", "0", "--no-grpc"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()))
    reader.start()
    wait_for(lambda: any("ready" in line for line in lines), f"not ready: {lines}")
    process.terminate()
    assert process.wait(60) == 0
    reader.join()
    process.stderr.close()
    text = "".join(lines)
    assert "listening at http://127.0.0.1:" in text
    assert "tiny version 1: ready after" in text
    assert text.endswith("ended\n")
    assert "warning" not in text


def test_a_server_for_everybody_without_keys_is_warned_of(artifact: Path, tmp_path: Path) -> None:
    with served(artifact, tmp_path / "tmp", "--host", EVERYWHERE, "--no-grpc") as server:
        assert EVERYWHERE in server.heard("Warned")["message"]
        assert server.end() == 0


def test_whoever_stops_reading_does_not_stop_the_server(artifact: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "serve", str(artifact), "--http-port", "0", "--no-grpc", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    port = json.loads(process.stdout.readline())["detail"]["http"]
    process.stdout.close()

    def is_ready() -> bool:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return client.recv(100).startswith(b"HTTP/1.1 200")

    wait_for(is_ready, "it does not get ready")
    process.terminate()
    process.communicate()
    assert process.returncode == 0


def test_without_the_extra_the_verb_names_it_and_its_help_still_works(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "httptools.py").write_text("raise ModuleNotFoundError('No module', name='httptools')\n")
    said = npuops("serve", artifact, code=3, PYTHONPATH=str(tmp_path))
    assert "httptools is not installed" in said
    assert "pip install 'npuops[serve]'" in said
    assert "--http-port" in npuops("serve", "--help", PYTHONPATH=str(tmp_path))


def test_help_fits_a_screen() -> None:
    done = subprocess.run(
        [*COMMAND, "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    lines = done.stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_the_front_end_imports_no_toolchain() -> None:
    heavy = "onnx onnxruntime openvino tflite scipy PIL rich opentelemetry"
    code = f"import sys, npuops.cli.serve_run; print([name for name in {heavy.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
