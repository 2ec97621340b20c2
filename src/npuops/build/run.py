"""One inference of an artifact, for people and scripts: outputs, the best labels, and an honest time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.manifest import Artifact, Manifest
from npuops.build.engine import RUNNER, EngineRun, run_engine
from npuops.errors import UsageError
from npuops.evaluate.class_scores import top_k
from npuops.evaluate.samples import Samples
from npuops.events import Observer, ignore
from npuops.targets.inputs import check_inputs
from npuops.targets.protocol import ModelledRun, Tensors
from npuops.targets.registry import open_target
from npuops.units import Basis, Latency

SCHEMA = "npuops.run/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSummary:
    """One output tensor; `file` where it was written."""

    shape: tuple[int, ...]
    dtype: str
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A class and its value in the first output."""

    label: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAnswer:
    """The JSON of `npuops run`, a contract (docs/run.md)."""

    schema: str = SCHEMA
    outputs: Mapping[str, OutputSummary]
    top_k: tuple[Score, ...]
    """Best first; empty where the manifest has no labels."""
    device: str
    """The target, and the engine if it is not the device."""
    latency: Latency | None
    """On this host; None for a reference implementation: its time means nothing."""
    modelled: ModelledRun | None = None
    """Of the last run, where the device is modelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """What `run_artifact` found."""

    outputs: Mapping[str, NDArray[Any]]
    """Output name → array, in the shape of one inference."""
    engine: str
    latency: Latency | None
    modelled: ModelledRun | None = None


def run_artifact(
    artifact: Artifact,
    inputs: Tensors,
    *,
    engine: str = RUNNER,
    repeat: int = 1,
    timeout_s: float = 600.0,
    observe: Observer = ignore,
) -> Inference:
    """Run a verified artifact on one input, in a child process.

    Args:
        artifact: verified.
        inputs: checked here against the manifest, before vendor code sees them.
        engine: `runner` (the device, or its emulator), or the name of a reference implementation. A reference is
            never taken in the runner's place by itself: it proves arithmetic and says nothing about the device.
        repeat: runs of the same input; the first of several only warms up.
        timeout_s: for all of them.
        observe: gets the progress.

    Raises:
        UsageError: the target has no such engine on a host.
        DataError: a name, dtype or shape is not the model's.
        ToolchainError: the vendor's code failed, crashed, or took too long.
    """
    check_inputs(inputs, artifact.manifest.inputs)
    _refuse_stand_in(artifact.manifest, engine)
    samples = Samples(inputs=(dict(inputs),) * repeat, source="the input", digest="")
    done = run_engine(artifact, samples, engine=engine, timeout_s=timeout_s, observe=observe)
    outputs = {name: stacked[0] for name, stacked in done.outputs.items()}
    return Inference(
        outputs=outputs,
        engine=engine,
        latency=_latency(done, artifact.manifest.target),
        modelled=done.modelled[-1] if done.modelled else None,
    )


def _refuse_stand_in(manifest: Manifest, engine: str) -> None:
    target = open_target(manifest.target)
    if engine != RUNNER or target.runner is not None:
        return
    names = " or ".join(f"--engine {name}" for name in target.references)
    raise UsageError(
        f"{manifest.target} has no device and no emulator on a host",
        advice=f"{names} runs the same graph with the device's arithmetic (and no meaningful time)" if names else "",
    )


def _latency(done: EngineRun, target: str) -> Latency | None:
    if done.basis not in set(Basis):
        return None
    timed = done.run_us[1:] or done.run_us
    count = len(timed)
    source = f"median of {count} runs after a warm-up" if len(done.run_us) > 1 else "1 run, warm-up included"
    return Latency(
        us=median(timed),
        low_us=min(timed),
        high_us=max(timed),
        basis=Basis(done.basis),
        source=f"{source}, {target} on this host",
    )


def top_scores(manifest: Manifest, outputs: Mapping[str, NDArray[Any]], count: int) -> tuple[Score, ...]:
    """The `count` largest values of the first output with their labels; nothing without labels.

    The output must be one vector of as many finite values as there are labels (dimensions of 1 do not matter).
    """
    if manifest.labels is None or not manifest.outputs or manifest.outputs[0].name not in outputs:
        return ()
    scores = np.asarray(outputs[manifest.outputs[0].name], dtype=np.float64).reshape(-1)
    if scores.size != len(manifest.labels) or not np.isfinite(scores).all():
        return ()
    (order,) = top_k(scores[None], count)
    return tuple(Score(label=manifest.labels[index], score=float(scores[index])) for index in order)


def run_answer(manifest: Manifest, done: Inference, *, top_k: int, file: str | None = None) -> RunAnswer:
    """The answer of `npuops run`."""
    device = manifest.target if done.engine == RUNNER else f"{manifest.target} ({done.engine} reference)"
    return RunAnswer(
        outputs={
            name: OutputSummary(shape=array.shape, dtype=array.dtype.name, file=file)
            for name, array in done.outputs.items()
        },
        top_k=top_scores(manifest, done.outputs, top_k),
        device=device,
        latency=done.latency,
        modelled=done.modelled,
    )
