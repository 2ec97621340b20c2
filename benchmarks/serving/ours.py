"""npuops as one more server of the comparison: artifacts built by its command line, served by its command line.

`npuops` serves the same fp32 ONNX file on ort-cpu with the same threads as every peer; `npuops-int8` serves what
`npuops build --target openvino` makes of it with calibration data, as a user would;
`npuops-vnpu` serves from a virtual NPU in real time (for the tenants: its work is scheduled by the device).
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from exchanges import oip_binary, oip_grpc, oip_json
from peers import Peer, Start
from served_models import ServedModel, photo_crops
from server_process import Command, free_port

import npuops

NPUOPS = Path(sys.executable).with_name("npuops")
WORKER = os.environ.get("NPUOPS_WORKER_PATTERN", r"npuops\.runtime\.worker|worker_process")
"""Command line of a worker process."""
CHIP = "vnpu:rk3588"
INT8 = {"mobilenet": ["--precision", "a8w8"]}
"""Models with calibration data here, and what their INT8 build is told."""


class BuildFailedError(RuntimeError):
    """`npuops build` refused a model."""


def fp32_artifact(model: ServedModel, folder: Path, threads: int = 1) -> Path:
    """The model as it is, for ONNX Runtime."""
    flags = ["--target", "ort-cpu", "--precision", "fp32", "--set", f"intra_op_num_threads={threads}"]
    if model.is_batched:
        flags.append("--dynamic-batch")
    return built(model.path, folder / f"{model.name}-fp32-{threads}t", flags)


def int8_artifact(model: ServedModel, folder: Path, threads: int = 0) -> Path:
    """Quantized with photo crops, for OpenVINO; judged on other crops."""
    crops = {}
    for name, seed in (("calibration", 1), ("evaluation", 2)):
        rows = photo_crops(seed)
        if not rows:
            raise BuildFailedError("no photos beside the checkout: an INT8 build needs calibration data")
        crops[name] = folder / f"{model.name}-{name}.npz"
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(crops[name], **{key: np.concatenate([row[key] for row in rows]) for key in rows[0]})
    flags = ["--target", "openvino", "--calibration", str(crops["calibration"]), "--eval", str(crops["evaluation"])]
    flags += [*INT8[model.name], "--set", f"inference_num_threads={threads}"]
    return built(model.path, folder / f"{model.name}-int8-{threads}t", flags)


def vnpu_artifact(model: ServedModel, folder: Path) -> Path:
    """Quantized for a virtual NPU; calibrated with noise, because nobody asks what this model means."""
    chance = np.random.default_rng(9)
    rows = {name: chance.standard_normal((16, *array.shape[1:])).astype("f") for name, array in model.inputs.items()}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{model.name}-noise.npz", **rows)
    flags = ["--target", CHIP, "--calibration", str(folder / f"{model.name}-noise.npz"), "--fallback", "allow"]
    return built(model.path, folder / f"{model.name}-vnpu", flags)


def built(source: Path | str, out: Path, flags: list[str]) -> Path:
    """Build once from a file, or from a name of the zoo; what the build said lies beside the artifact.

    Raises:
        BuildFailedError: with the last words of the build.
    """
    argv = [str(NPUOPS), "build", str(source), *flags, "-o", str(out), "--json"]
    key, key_file = build_key(source, flags), out.with_suffix(".key")
    if (out / "manifest.json").is_file() and key_file.is_file() and key_file.read_text() == key:
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out, ignore_errors=True)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildFailedError(f"{' '.join(argv)}: {done.stderr[-800:] or done.stdout[-800:]}")
    out.with_suffix(".build.json").write_text(done.stdout)
    key_file.write_text(key)
    return out


def build_key(source: Path | str, flags: list[str]) -> str:
    """What an artifact is made of: an older one of another model, other flags or another npuops is no answer."""
    content = source.read_bytes() if isinstance(source, Path) else str(source).encode()
    names = [Path(flag) for flag in flags if flag.endswith(".npz")]
    data = b"".join(name.read_bytes() for name in names)
    said = "\n".join([npuops.__version__, *(Path(flag).name if flag.endswith(".npz") else flag for flag in flags)])
    return hashlib.sha256(b"\0".join((content, data, said.encode()))).hexdigest()


def accuracy(artifact: Path) -> dict[str, Any]:
    """What the build measured against fp32 on the engine itself, for the table."""
    said: dict[str, Any] = json.loads(artifact.with_suffix(".build.json").read_text())
    (against,) = [found for found in said["parity"]["comparisons"] if found["reference"] == "fp32"]
    output = against["outputs"][0]
    return {
        "gate": said["gate"]["verdict"],
        "agreement": f"top-1 {output['top1_agreement']:.1%}, cosine {output['cosine']:.4f}, {against['samples']} crops",
    }


def serve(what: Path, http_port: int, grpc_port: int, *flags: str) -> Command:
    """`npuops serve` of an artifact or a repository."""
    return Command(
        argv=(
            str(NPUOPS),
            "serve",
            str(what),
            "--host",
            "127.0.0.1",
            "--http-port",
            str(http_port),
            "--grpc-port",
            str(grpc_port),
            *flags,
        ),
        http_port=http_port,
        grpc_port=grpc_port,
        ready="/v2/health/ready",
        env={"OMP_NUM_THREADS": "1"},
    )


def artifacts_beside(model: ServedModel) -> Path:
    """Built once for all runs over the same model files."""
    return model.path.parent / "artifacts"


def start_fp32(model: ServedModel, scratch: Path, threads: int) -> Command:
    """Every name of a tenant stands for itself, as the tenants' scenario needs it."""
    config = scratch / "serve.toml"
    config.write_text('unknown_tenants = "own"\n', encoding="utf-8")
    artifact = fp32_artifact(model, artifacts_beside(model), threads)
    return serve(artifact, free_port(), free_port(), "--config", str(config))


def start_int8(threads: int) -> Start:
    """With OpenVINO's own choice of threads (0), or as many as every peer has."""

    def start(model: ServedModel, _scratch: Path, _threads: int) -> Command:
        return serve(int8_artifact(model, artifacts_beside(model), threads), free_port(), free_port())

    return start


def start_vnpu(model: ServedModel, scratch: Path, _threads: int) -> Command:
    """A device in real time first (its process carries the tree's mark too), then the server on it."""
    artifact = vnpu_artifact(model, artifacts_beside(model))
    name = f"bench{os.getpid()}"
    command = serve(artifact, free_port(), free_port())
    up = shlex.join([str(NPUOPS), "device", "up", CHIP, "--name", name, "--pacing", "realtime"])
    line = f"{up} && exec env NPUOPS_DEVICE={name} {shlex.join(command.argv)}"
    return replace(command, argv=("sh", "-c", line), folder=scratch)


OIP = {"json": oip_json, "binary": oip_binary, "grpc": oip_grpc}
OURS = {
    peer.name: peer
    for peer in (
        Peer(name="npuops", start=start_fp32, exchanges=OIP, worker=WORKER),
        Peer(name="npuops-int8", start=start_int8(0), exchanges=OIP, worker=WORKER, int8=True),
        Peer(name="npuops-vnpu", start=start_vnpu, exchanges=OIP, worker=WORKER, int8=True),
        Peer(name="npuops-int8-1t", start=start_int8(1), exchanges=OIP, worker=WORKER, int8=True),
    )
}
