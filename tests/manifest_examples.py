"""Manifests for tests about judging and showing artifacts, where no file has to exist."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from npuops.artifacts.evidence import Accuracy, Comparison, Gate, GateRule, OutputParity, Parity, Verdict
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
from npuops.targets.protocol import OpCost, Profile
from npuops.units import Basis


def output(**changes: Any) -> OutputParity:
    """A healthy quantized output."""
    base = OutputParity(
        output="probabilities", cosine=0.99873, sqnr_db=28.4, max_abs=0.0312, top1_agreement=0.9875, finite=True
    )
    return dataclasses.replace(base, **changes)


def comparison(**changes: Any) -> Comparison:
    """The engine against the fp32 model."""
    base = Comparison(engine="qnn-htp:sm8650", basis="emulated", reference="fp32", samples=80, outputs=(output(),))
    return dataclasses.replace(base, **changes)


def parity(*comparisons: Comparison, **changes: Any) -> Parity:
    """A parity that passed; by default against both references."""
    exact = comparison(reference="quantized", outputs=(output(cosine=1.0, sqnr_db=None, max_abs=0.0),))
    base = Parity(
        verdict=Verdict.PASS,
        comparisons=comparisons or (comparison(), exact),
        run_us=41_250.0,
        run_basis="emulated",
    )
    return dataclasses.replace(base, **changes)


_OPS = ("Conv", "Clip", "Conv", "Clip", "Conv", "Add")


def placement(nodes: int = 60, cpu: tuple[int, ...] = (0, 30, 31, 58, 59)) -> PlacementReport:
    """A chain of convolutions with a few nodes on the CPU."""
    placed = tuple(
        Placement(
            name=f"features.{index}/{_OPS[index % 6].lower()}",
            op=_OPS[index % 6],
            runs_on=RunsOn.CPU if index in cpu else RunsOn.NPU,
            rule="stride must be 1 to 3" if index in cpu else f"{_OPS[index % 6]} is supported",
            found="stride 4" if index in cpu else "",
        )
        for index in range(nodes)
    )
    return PlacementReport(nodes=placed, fallback_ratio=FallbackRatio(ops=len(cpu) / nodes, macs=0.0213))


def manifest(**changes: Any) -> Manifest:
    """A complete manifest; `changes` replace whole fields."""
    base = Manifest(
        digest="sha256:" + "ab" * 32,
        created="2026-11-21T22:40:00Z",
        npuops="0.1.0",
        model=ModelIdentity(
            name="mobilenet_v2_1.0_224",
            digest="sha256:" + "cd" * 32,
            format="onnx",
            opset=17,
            macs=300_774_272,
            weight_bytes=13_956_000,
        ),
        target="qnn-htp:sm8650",
        precision="a8w8",
        inputs=(TensorInfo(name="x", dtype="float32", shape=(1, 3, 224, 224)),),
        outputs=(TensorInfo(name="probabilities", dtype="float32", shape=(1, 1001)),),
        entry="model_ctx.onnx",
        files=(
            FileRecord(name="model_ctx.onnx", role=Role.COMPILED, sha256="1" * 64, bytes=1_824),
            FileRecord(name="model_qnn.bin", role=Role.COMPILED, sha256="2" * 64, bytes=3_960_832),
            FileRecord(name="quantized.onnx", role=Role.QUANTIZED, sha256="3" * 64, bytes=3_812_001),
        ),
        quantization=Quantization(
            method="percentile",
            per_channel=True,
            activations="mixed",
            weights="int8",
            calibration_samples=64,
            calibration_digest="sha256:" + "ef" * 32,
            tensors_16bit=("encoder/layer.0/output", "encoder/layer.5/output"),
        ),
        placement=placement(),
        toolchain={"onnxruntime": "1.31.1", "onnxruntime-qnn": "2.7.0", "qairt": "2.51.0"},
        compatibility="v2:6:2.51.0:5.51.0:75:57:0:0",
        compile=CompileRecord(
            seconds=0.35, cache_key="sha256:" + "77" * 32, vendor_options={"htp_performance_mode": "burst"}
        ),
        parity=parity(),
        accuracy=Accuracy(metric="top1", fp32=0.7183, artifact=0.7121, samples=500),
        gate=Gate(
            verdict=Verdict.PASS,
            rules=(
                GateRule(name="parity", verdict=Verdict.PASS, wanted="verdict pass", found="verdict pass"),
                GateRule(name="finite", verdict=Verdict.PASS, wanted="no NaN, no infinity", found="all finite"),
            ),
        ),
    )
    return dataclasses.replace(base, **changes)


def artifact(**changes: Any) -> Artifact:
    """An artifact whose folder does not exist: for code that reads only the manifest."""
    return Artifact(Path("mobilenet.npuart"), manifest(**changes))


def profile(nodes: int = 60) -> Profile:
    """Costs for the nodes of `placement`."""
    placed = placement(nodes).nodes
    ops = tuple(
        OpCost(name=node.name, op=node.op, runs_on=node.runs_on, cost=1000.0 + 7919 * index % 9001)
        for index, node in enumerate(placed)
    )
    return Profile(basis=Basis.EMULATED, unit="emulator ticks", source="onnxruntime-qnn 2.7.0", ops=ops)
