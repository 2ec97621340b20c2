"""A real artifact for tests of the command line: compiled by the toy target, run, compared, sealed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from npuops.artifacts.evidence import Parity
from npuops.artifacts.folder import write_artifact
from npuops.artifacts.manifest import Artifact, CompileRecord, FileRecord, Manifest, ModelIdentity, Role
from npuops.build.engine import run_engine
from npuops.build.parity import ParityLimits, compare, judge
from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import Samples
from npuops.models.open import open_model
from npuops.models.placement import placement_report
from npuops.targets.protocol import CompileOptions, Precision
from npuops.targets.registry import open_target
from onnx_models import mlp

LABELS = tuple(f"digit <{index}>" for index in range(10))


def toy_artifact(folder: Path, *, seed: int = 0, **changes: Any) -> Artifact:
    """Build a small MLP for `toy` into `folder`; the parity in it was measured."""
    source = mlp(folder.with_suffix(".onnx"), seed=seed)
    model = open_model(source)
    target = open_target("toy")
    folder.mkdir()
    done = target.compile(model, CompileOptions(precision=Precision.FP32), folder)
    manifest = Manifest(
        created="2026-11-21T22:40:00Z",
        npuops="0.1.0",
        model=ModelIdentity(
            name="mlp", digest=model.digest, format="onnx", opset=17, macs=model.macs, weight_bytes=model.weight_bytes
        ),
        target="toy",
        precision="fp32",
        inputs=model.inputs,
        outputs=model.outputs,
        entry=done.entry,
        files=tuple(FileRecord(name=name, role=Role.COMPILED, sha256="", bytes=0) for name in done.files),
        quantization=None,
        placement=placement_report(model, done.placement),
        toolchain=target.probe().toolchain,
        compatibility=done.compatibility,
        compile=CompileRecord(seconds=0.01, cache_key="toy"),
        labels=LABELS,
    )
    samples = Samples(inputs=tuple({"x": sample_input(number)} for number in range(8)), source="test", digest="")
    ran = run_engine(Artifact(folder, manifest), samples)
    comparison = compare("toy", ran.basis, "fp32", ran.outputs, run_reference(source, samples))
    verdict, reasons = judge((comparison,), ParityLimits())
    parity = Parity(
        verdict=verdict,
        comparisons=(comparison,),
        reasons=reasons,
        run_us=float(np.median(ran.run_us)),
        run_basis=ran.basis,
    )
    return write_artifact(folder, replace(manifest, parity=parity, **changes))


def sample_input(seed: int = 0) -> np.ndarray[Any, Any]:
    """One input of the MLP."""
    return np.random.default_rng(seed).normal(size=(1, 16)).astype(np.float32)


def npuops(*arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """The command line, as a user starts it."""
    done = subprocess.run(
        [sys.executable, "-c", "from npuops.cli.main import main; main()", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
