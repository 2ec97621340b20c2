"""The servers that npuops is measured against: where each is installed, how it starts, what it is sent.

    python benchmarks/serving/peers.py setup [NAME…]     one virtual environment each, under /tmp/npuops-peers
    python benchmarks/serving/peers.py list

Tuned fairly: one ONNX Runtime session with the same threads everywhere, batching on where the model's first axis is
free and the server can batch (2 ms of delay where that is the documented knob; Triton also with 0), no logs, 1 worker.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from exchanges import Exchange, listed_json, oip_binary, oip_grpc, oip_json, plain_bytes, plain_json
from served_models import ServedModel
from server_process import Command, free_port

ENVIRONMENTS = Path(os.environ.get("NPUOPS_PEERS", "/tmp/npuops-peers"))  # noqa: S108 - a fixed place is shared by runs
FILES = Path(__file__).resolve().parent / "peer_files"
ORT = "onnxruntime==1.31.1"
PACKAGES = {
    "triton": ["nvidia-pytriton==0.7.0", ORT],
    "mlserver": ["mlserver==1.7.1", "uvloop<0.22", ORT],
    "fastapi": ["fastapi==0.165.0", "uvicorn==0.54.0", "uvloop", "httptools", ORT],
    "litserve": ["litserve==0.2.19", ORT],
    "kserve": ["kserve==0.21.0", ORT],
    "bentoml": ["bentoml==1.4.39", ORT],
    "ray": ["ray[serve]==2.60.0", ORT],
}
OIP = {"json": oip_json, "binary": oip_binary, "grpc": oip_grpc}
PLAIN: dict[str, Callable[[ServedModel], Exchange]] = {"json": plain_json, "binary": plain_bytes}

Start = Callable[[ServedModel, Path, int], Command]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One way to serve a model."""

    name: str
    start: Start
    """(Model, empty scratch folder, ONNX Runtime threads) → command."""
    exchanges: dict[str, Callable[[ServedModel], Exchange]]
    """Protocol → request."""
    worker: str = ""
    """Command line of the process that runs the model; "" when the server is that process."""
    python: bool = True
    """Whether its front end is Python (the goals tell them from Triton's C++)."""
    int8: bool = False
    """Answers are near fp32, not equal."""


def installed(name: str) -> Path:
    """The folder of a peer's environment."""
    return ENVIRONMENTS / name


def setup(names: list[str]) -> None:
    """Make the environments that are asked for (all of them by default), by the installer's ordinary way."""
    for name in names or PACKAGES:
        folder = installed(name)
        if not (folder / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES[name]], check=True)
        print(f"{name}: {folder}", flush=True)


def environment(model: ServedModel, threads: int, http_port: int, grpc_port: int = 0) -> dict[str, str]:
    """What `peer_files/peer_session.py` reads, and one thread for every other library."""
    return {
        "BENCH_MODEL": str(model.path),
        "BENCH_NAME": model.name,
        "BENCH_MAX_ROWS": str(model.max_rows),
        "BENCH_THREADS": str(threads),
        "BENCH_HTTP_PORT": str(http_port),
        "BENCH_GRPC_PORT": str(grpc_port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(FILES),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def script(peer: str, file: str, ready: str) -> Start:
    """A peer that is one Python file."""

    def start(model: ServedModel, scratch: Path, threads: int) -> Command:
        http_port, grpc_port = free_port(), free_port()
        return Command(
            argv=(str(installed(peer) / "bin" / "python"), str(FILES / file)),
            http_port=http_port,
            grpc_port=grpc_port,
            ready=ready.format(model=model.name),
            env={
                **environment(model, threads, http_port, grpc_port),
                "BENCH_SCRATCH": str(scratch),
                "RAY_USAGE_STATS_ENABLED": "0",
            },
            folder=scratch,
        )

    return start


def triton(delay_us: int) -> Start:
    """Triton with its python backend; models are loaded and unloaded on demand (`explicit`)."""

    def start(model: ServedModel, scratch: Path, threads: int) -> Command:
        packages = installed("triton") / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        home = packages / "pytriton" / "tritonserver"
        triton_version(scratch / "repository", model, threads, delay_us, version="1")
        http_port, grpc_port = free_port(), free_port()
        return Command(
            argv=(
                str(home / "bin" / "tritonserver"),
                f"--model-repository={scratch / 'repository'}",
                f"--backend-directory={backends(home, scratch)}",
                "--model-control-mode=explicit",
                f"--load-model={model.name}",
                "--http-address=127.0.0.1",
                f"--http-port={http_port}",
                "--grpc-address=127.0.0.1",
                f"--grpc-port={grpc_port}",
                "--allow-metrics=false",
                "--log-info=false",
                "--disable-auto-complete-config",
            ),
            http_port=http_port,
            grpc_port=grpc_port,
            ready=f"/v2/models/{model.name}/ready",
            env={"BENCH_PACKAGES": str(packages), "OMP_NUM_THREADS": "1"},
            folder=scratch,
        )

    return start


def backends(home: Path, scratch: Path) -> Path:
    """The python backend with the stub of this Python beside it, as Triton expects them."""
    folder = scratch / "backends" / "python"
    folder.mkdir(parents=True, exist_ok=True)
    stub = home / "python_backend_stubs" / f"3.{sys.version_info.minor}" / "triton_python_backend_stub"
    for file in [*(home / "backends" / "python").iterdir(), stub]:
        if not (folder / file.name).exists():
            (folder / file.name).symlink_to(file)
    return folder.parent


def triton_version(repository: Path, model: ServedModel, threads: int, delay_us: int, *, version: str) -> None:
    """Write one version of a model and its configuration."""
    folder = repository / model.name / version
    folder.mkdir(parents=True)
    (folder / "model.py").write_text((FILES / "triton_model.py").read_text())
    types = {"FP32": "TYPE_FP32", "INT32": "TYPE_INT32", "INT64": "TYPE_INT64"}

    def dims(shape: tuple[int, ...]) -> str:
        return ", ".join(str(size) for size in (shape[1:] if model.is_batched else shape))

    inputs = ", ".join(
        f'{{name: "{name}" data_type: {types[model.datatype(name)]} dims: [{dims(array.shape)}]}}'
        for name, array in model.inputs.items()
    )
    lines = [
        'backend: "python"',
        f"max_batch_size: {model.max_rows if model.is_batched else 0}",
        f"input [{inputs}]",
        f'output [{{name: "{model.output}" data_type: TYPE_FP32 dims: [{dims(model.answer.shape)}]}}]',
        "instance_group [{count: 1 kind: KIND_CPU}]",
        f'parameters {{key: "file" value: {{string_value: "{model.path}"}}}}',
        f'parameters {{key: "threads" value: {{string_value: "{threads}"}}}}',
    ]
    if model.is_batched:
        lines.append(f"dynamic_batching {{max_queue_delay_microseconds: {delay_us}}}")
    (repository / model.name / "config.pbtxt").write_text("\n".join(lines) + "\n")


def mlserver(workers: int) -> Start:
    """MLServer with a custom runtime; `workers` 0 runs the model in the server's own process."""

    def start(model: ServedModel, scratch: Path, threads: int) -> Command:
        http_port, grpc_port = free_port(), free_port()
        (scratch / "settings.json").write_text(
            f'{{"host": "127.0.0.1", "http_port": {http_port}, "grpc_port": {grpc_port}, '
            f'"metrics_endpoint": null, "parallel_workers": {workers}, "debug": false}}'
        )
        batching = f', "max_batch_size": {model.max_rows}, "max_batch_time": 0.002' if model.is_batched else ""
        (scratch / "model-settings.json").write_text(
            f'{{"name": "{model.name}", "implementation": "mlserver_runtime.OnnxRuntime"{batching}}}'
        )
        return Command(
            argv=(str(installed("mlserver") / "bin" / "mlserver"), "start", str(scratch)),
            http_port=http_port,
            grpc_port=grpc_port,
            ready=f"/v2/models/{model.name}/ready",
            env=environment(model, threads, http_port),
            folder=scratch,
        )

    return start


def bentoml(model: ServedModel, scratch: Path, threads: int) -> Command:
    """BentoML by its command line."""
    port = free_port()
    return Command(
        argv=(
            str(installed("bentoml") / "bin" / "bentoml"),
            "serve",
            "bento_service:Onnx",
            "--host=127.0.0.1",
            f"--port={port}",
        ),
        http_port=port,
        ready="/readyz",
        env={
            **environment(model, threads, port),
            "BENTOML_HOME": str(scratch),
            "BENTOML_DO_NOT_TRACK": "True",
            "PATH": f"{installed('bentoml') / 'bin'}:{os.environ['PATH']}",
        },
        folder=FILES,
    )


MULTIPROCESSING = r"multiprocessing\.spawn|spawn_main"
PEERS = {
    peer.name: peer
    for peer in (
        Peer(name="triton-py", start=triton(2000), exchanges=OIP, worker="triton_python_backend_stub", python=False),
        Peer(name="triton-py-d0", start=triton(0), exchanges=OIP, worker="triton_python_backend_stub", python=False),
        Peer(
            name="mlserver",
            start=mlserver(1),
            exchanges={"json": oip_json, "grpc": oip_grpc},
            worker=MULTIPROCESSING,
        ),
        Peer(name="mlserver-pw0", start=mlserver(0), exchanges={"json": oip_json, "grpc": oip_grpc}),
        Peer(
            name="litserve",
            start=script("litserve", "litserve_app.py", "/health"),
            exchanges={"json": plain_json},
            worker=MULTIPROCESSING,
        ),
        Peer(name="bentoml", start=bentoml, exchanges={"json": listed_json}, worker=r"worker[./]service"),
        Peer(
            name="ray",
            start=script("ray", "ray_app.py", "/-/healthz"),
            exchanges=PLAIN,
            worker="ServeReplica",
        ),
        Peer(name="kserve", start=script("kserve", "kserve_app.py", "/v2/models/{model}/ready"), exchanges=OIP),
        Peer(name="fastapi", start=script("fastapi", "fastapi_app.py", "/ready"), exchanges=PLAIN),
        Peer(
            name="fastapi-inline",
            start=script("fastapi", "fastapi_app.py", "/ready"),
            exchanges={"json": partial(plain_json, path="/inline"), "binary": partial(plain_bytes, path="/raw-inline")},
        ),
    )
}


def main() -> None:
    match sys.argv[1:]:
        case ["setup", *names]:
            setup(names)
        case ["list"]:
            for peer in PEERS.values():
                print(f"{peer.name:14} {', '.join(peer.exchanges)}")
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
