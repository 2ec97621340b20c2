"""The proof that a free batch axis is one: the rows of a batch equal the rows alone, on the artifact's own engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from npuops.artifacts.evidence import Comparison
from npuops.artifacts.manifest import Artifact
from npuops.build.engine import EngineRun, run_engine
from npuops.build.parity import ROWS_ALONE, compare
from npuops.errors import NpuopsError, RunError, UnsupportedModelError
from npuops.evaluate.metrics import Array
from npuops.evaluate.sample_sources import random_samples
from npuops.evaluate.samples import Samples, make_samples
from npuops.events import Observer, ignore
from npuops.models.batch_axis import TRIAL_ROWS, is_open, with_rows

_ADVICE = "build it with a fixed batch: without --dynamic-batch, and with --shape where the model leaves it open"


def has_rows(artifact: Artifact) -> bool:
    """Whether the artifact takes a batch of any size."""
    return any(is_open(tensor) for tensor in artifact.manifest.inputs)


def compare_rows(
    artifact: Artifact, evaluation: Samples, *, timeout_s: float, observe: Observer = ignore
) -> Comparison:
    """Run a few different rows together and one by one, on the device's engine.

    Args:
        artifact: compiled, with a free batch axis.
        evaluation: where the rows come from; random ones stand in where there are too few different ones.
        timeout_s: for each run.
        observe: gets the progress.

    Raises:
        UnsupportedModelError: the batch does not go through, or an output does not have its rows.
        ToolchainError: the engine could not run at all.
    """
    rows = _rows(artifact, evaluation)
    alone = run_engine(artifact, rows, timeout_s=timeout_s, observe=observe)
    together = _together(artifact, rows, timeout_s, observe)
    got = {name: _split(name, array[0]) for name, array in together.outputs.items()}
    label = f"{artifact.manifest.target} ({len(rows)} rows)"
    try:
        return compare(label, alone.basis, ROWS_ALONE, got, alone.outputs)
    except ValueError as error:
        raise UnsupportedModelError(
            f"the batch cannot be free: {error} for {len(rows)} rows", advice=_ADVICE
        ) from error


def _rows(artifact: Artifact, evaluation: Samples) -> Samples:
    """Different rows: equal ones would hide that they were mixed up."""
    chosen: list[dict[str, Array]] = []
    for sample in evaluation.inputs:
        if len(chosen) < TRIAL_ROWS and not any(_equal(sample, other) for other in chosen):
            chosen.append(sample)
    missing = TRIAL_ROWS - len(chosen)
    if missing:
        chosen += random_samples(with_rows(artifact.manifest.inputs), missing, 0).inputs
    return make_samples(chosen, source=evaluation.source)


def _equal(one: dict[str, Array], other: dict[str, Array]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


def _together(artifact: Artifact, rows: Samples, timeout_s: float, observe: Observer) -> EngineRun:
    batch = {name: np.concatenate([row[name] for row in rows.inputs]) for name in rows.inputs[0]}
    one = replace(rows, inputs=(batch,), labels=None)
    try:
        return run_engine(artifact, one, timeout_s=timeout_s, observe=observe)
    except RunError as error:
        raise _refused(error, len(rows)) from error


def _refused(error: NpuopsError, rows: int) -> UnsupportedModelError:
    words = f"the batch cannot be free: one row runs, {rows} rows do not: {error.message}"
    return UnsupportedModelError(words, advice=_ADVICE)


def _split(name: str, array: Array) -> Array:
    """[rows, …] as [rows, 1, …]: in the shape of so many runs of one row."""
    if not array.ndim:
        raise UnsupportedModelError(f"the batch cannot be free: output {name!r} is one number", advice=_ADVICE)
    return array[:, None]
