"""The yardstick of the quantizer benchmark: agreement with fp32 of a quantized file on three engines."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from npuops.artifacts.manifest import ModelIdentity
from npuops.build.compile import Work, compile_model
from npuops.build.engine import run_engine
from npuops.clock import SystemClock
from npuops.errors import NpuopsError
from npuops.evaluate.metrics import cosine, top1_agreement
from npuops.evaluate.samples import make_samples
from npuops.models.onnx_file import digest_of
from npuops.models.open import open_model
from npuops.quantize.held_back import answers
from npuops.targets.protocol import CompileOptions, Precision
from npuops.targets.registry import open_target

TARGETS = ("qnn-htp:sm8650", "openvino")
EMULATED = 24
"""Samples on a slow engine."""
LIMIT_S = 240.0
"""For one compilation, and for all runs: the emulator needs minutes for a float operator."""
CLASSES = 1000
"""Outputs with as many values are classes: top-1 is shown for them, cosine for everything."""

HEADINGS = ("ORT CPU", *(heading for target in TARGETS for heading in (f"{target}: on it", f"{target}: agrees")))


class Yardstick:
    """A float model, the samples, and its answers."""

    def __init__(self, model: Path, inputs: tuple[dict[str, NDArray[Any]], ...]) -> None:
        self.samples = make_samples(inputs, source="held out")
        self.wanted = answers(onnx.load(model), self.samples)

    def agreement(self, outputs: dict[str, NDArray[Any]]) -> str:
        """Cosine with fp32, and top-1 of a classifier, of the first samples."""
        name = next(iter(self.wanted))
        got = outputs[name]
        wanted = self.wanted[name][: len(got)]
        near = cosine(got, wanted) if np.isfinite(got).all() else None
        words = "not finite" if near is None else f"cos {near:.4f}"
        top1 = top1_agreement(got, wanted) if wanted[0].size >= CLASSES else None
        return words if top1 is None else f"{words}, top-1 {top1:.1%}"


def judged(quantized: Path, yardstick: Yardstick) -> list[str]:
    """One cell per heading."""
    cells = [yardstick.agreement(dict(answers(onnx.load(quantized), yardstick.samples)))]
    for name in TARGETS:
        target = open_target(name)
        probe = target.probe()
        cells.extend(on_target(quantized, name, yardstick) if probe.available else ["not installed", "–"])
    return cells


def on_target(quantized: Path, name: str, yardstick: Yardstick) -> list[str]:
    """Compile and run in child processes with a time limit; a failure is a result too."""
    target = open_target(name)
    placed = "–"
    with tempfile.TemporaryDirectory(prefix="npuops-judge-") as folder:
        try:
            model = open_model(quantized)
            identity = ModelIdentity(
                name=quantized.name,
                digest=digest_of(quantized),
                format=str(model.format),
                opset=model.opset,
                macs=model.macs,
                weight_bytes=model.weight_bytes,
            )
            draft = compile_model(
                Work(source=identity, model=model),
                target,
                CompileOptions(precision=Precision.A8W8),
                Path(folder) / "artifact",
                store=None,
                clock=SystemClock(),
                timeout_s=LIMIT_S,
            )
            placed = f"{1 - draft.manifest.placement.fallback_ratio.ops:.0%}"
            few = yardstick.samples.first(EMULATED) if target.traits.slow_run else yardstick.samples
            run = run_engine(draft, few, timeout_s=LIMIT_S)
        except NpuopsError as error:
            return [placed, f"{type(error).__name__}: {error.message[:70]}".replace("|", "/").replace("\n", " ")]
    return [placed, yardstick.agreement(dict(run.outputs))]
