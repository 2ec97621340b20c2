"""A small artifact for the tests of `npuops.artifacts`: every field of the manifest filled, a file in a sub-folder."""

from __future__ import annotations

import ctypes
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from npuops.artifacts.evidence import Accuracy, Comparison, Gate, GateRule, OutputParity, Parity, Verdict
from npuops.artifacts.folder import write_artifact
from npuops.artifacts.manifest import (
    Artifact,
    CompileRecord,
    FileRecord,
    Manifest,
    ModelIdentity,
    Quantization,
    Role,
)
from npuops.models.model import TensorInfo
from npuops.models.placement import FallbackRatio, Placement, PlacementReport, RunsOn
from npuops.models.preprocessing import ImagePreprocessing

FILES = {"model_ctx.onnx": Role.COMPILED, "quantized.onnx": Role.QUANTIZED, "report/index.html": Role.REPORT}


def manifest(**changes: Any) -> Manifest:
    """A manifest that is not sealed yet; floats that are whole, text that is not ASCII, empty maps and tuples."""
    output = OutputParity(output="y", cosine=1, sqnr_db=41.25, max_abs=1e-17, top1_agreement=1.0, finite=True)
    values: dict[str, Any] = {
        "created": "2026-11-21T22:00:00Z",
        "npuops": "0.1.0",
        "model": ModelIdentity(
            name="mödel.onnx", digest="sha256:" + "ab" * 32, format="onnx", opset=17, macs=1000, weight_bytes=64
        ),
        "target": "qnn-htp:sm8650",
        "precision": "a8w8",
        "inputs": (TensorInfo(name="x", dtype="float32", shape=(1, "height", None)),),
        "outputs": (TensorInfo(name="y", dtype="float32", shape=None),),
        "entry": "model_ctx.onnx",
        "files": tuple(FileRecord(name=name, role=role, sha256="", bytes=0) for name, role in FILES.items()),
        "quantization": Quantization(
            method="minmax",
            per_channel=True,
            activations="uint8",
            weights="int8",
            calibration_samples=32,
            calibration_digest="sha256:" + "cd" * 32,
        ),
        "placement": PlacementReport(
            nodes=(Placement(name="conv_1", op="Conv", runs_on=RunsOn.NPU, rule="constant weights"),),
            fallback_ratio=FallbackRatio(ops=0, macs=None),
        ),
        "toolchain": {"onnxruntime": "1.31.1", "onnxruntime-qnn": "2.7.0"},
        "compatibility": "v2:6:2.51.0:5.51.0:0:57:0:0",
        "compile": CompileRecord(seconds=2, cache_key="k1", vendor_options={"soc_model": "57"}),
        "parity": Parity(
            verdict=Verdict.PASS,
            comparisons=(
                Comparison(
                    engine="qnn-htp:sm8650", basis="emulated", reference="quantized", samples=8, outputs=(output,)
                ),
            ),
        ),
        "accuracy": Accuracy(metric="top1", fp32=0.75, artifact=0.5, samples=4),
        "image": ImagePreprocessing(mean=(0.5, 0.25, 1), channels="bgr", resize=1.14),
        "gate": Gate(
            verdict=Verdict.PASS, rules=(GateRule(name="top1", verdict=Verdict.PASS, wanted="≥ 0.5", found="0.5"),)
        ),
    }
    return Manifest(**{**values, **changes})


def made(folder: Path, *, seed: int = 0, size: int = 300, **changes: Any) -> Artifact:
    """Write the files (pseudo-random bytes) and seal them."""
    source = random.Random(seed)  # noqa: S311 - bytes that differ, nothing secret
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(size))
    return write_artifact(folder, manifest(**changes))


@contextmanager
def open_to_all() -> Iterator[Path]:
    """A folder that every user of the machine can enter; pytest's own ones are private."""
    with tempfile.TemporaryDirectory(prefix="npuops-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def mounted(folder: Path, *, kib: int) -> Iterator[Path]:
    """A small disk of its own; the test is skipped where we may not mount."""
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"npuops", bytes(folder), b"tmpfs", 0, b"size=%dk" % kib) != 0:
        pytest.skip(f"cannot mount a small disk: {os.strerror(ctypes.get_errno())} (needs root)")
    try:
        yield folder
    finally:
        if libc.umount(bytes(folder)) != 0:
            pytest.fail(f"cannot unmount {folder}: {os.strerror(ctypes.get_errno())}")
