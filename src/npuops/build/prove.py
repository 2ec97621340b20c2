"""Prove an artifact: run it and the references on evaluation inputs, judge, and on failure say where."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.evidence import Comparison, Divergence, Parity, Verdict
from npuops.artifacts.manifest import Artifact
from npuops.build.engine import REFERENCE_BASIS, RUNNER, EngineRun, engines, run_engine
from npuops.build.localise import DIVERGED_DB, BuildProbe, engine_divergence, quantization_divergence
from npuops.build.parity import FP32, QUANTIZED, ROWS_ALONE, ParityLimits, compare, judge
from npuops.build.rows import compare_rows, has_rows
from npuops.errors import NpuopsError, RunError, ToolchainError
from npuops.evaluate.metrics import Array
from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import Samples
from npuops.events import Observer, ignore
from npuops.targets.protocol import REFERENCES_DIFFER, Target
from npuops.units import Basis


@dataclass(frozen=True, slots=True, kw_only=True)
class Graphs:
    """The graphs that an artifact came from, as ONNX files with the same inputs and outputs."""

    compiled: Path
    """What the vendor's compiler was given."""
    float_model: Path | None
    """The fp32 model; None when the model came quantized, so that there is no fp32 to compare with."""
    is_quantized: bool
    """The compiled graph computes in other numbers than the fp32 model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The parity evidence, and the outputs it rests on (for a task metric)."""

    parity: Parity
    engine_outputs: dict[str, Array]
    float_outputs: dict[str, Array]
    """Empty when there is no fp32 model."""


def prove(
    artifact: Artifact,
    target: Target,
    graphs: Graphs,
    evaluation: Samples,
    *,
    limits: ParityLimits,
    build_probe: BuildProbe,
    timeout_s: float,
    observe: Observer = ignore,
) -> Proof:
    """Compare every engine that runs here with the quantized graph and with fp32.

    Args:
        artifact: compiled, not yet published.
        target: the one it was compiled for.
        graphs: what it came from.
        evaluation: inputs that calibration did not see.
        limits: see `ParityLimits`.
        build_probe: compiles a graph for the same target, for localisation.
        timeout_s: for each engine over all samples.
        observe: gets the progress of the runs.

    Raises:
        ToolchainError: the engine could not run at all.
        UnsupportedModelError: the batch axis is free, and the graph does not take several rows.
    """
    if REFERENCES_DIFFER in artifact.manifest.compile.notes:
        limits = replace(limits, same_arithmetic=limits.nearly_same_arithmetic)
    wanted = _references(graphs, evaluation)
    runs, skipped = _run_engines(artifact, target, evaluation, timeout_s, observe)
    comparisons = _comparisons(artifact.manifest.target, runs, wanted)
    if has_rows(artifact):
        comparisons += (compare_rows(artifact, evaluation, timeout_s=timeout_s, observe=observe),)
    verdict, reasons = judge(comparisons, limits)
    where: tuple[Divergence, ...] = ()
    first = next(iter(runs.values()), None)
    run_us, run_basis = _typical_us(first)
    if verdict is Verdict.FAIL:
        failed = {comparison.reference for comparison in comparisons if judge((comparison,), limits)[0] is Verdict.FAIL}
        missed = next((outputs for reference, outputs in wanted.items() if reference in failed), {})
        where, more = _localise(graphs, _worst_first(evaluation, first, missed), failed, build_probe, timeout_s)
        reasons += more
    parity = Parity(
        verdict=verdict,
        comparisons=comparisons,
        reasons=reasons,
        first_divergence=where,
        skipped=skipped,
        run_us=run_us,
        run_basis=run_basis,
    )
    return Proof(
        parity=parity,
        engine_outputs={} if first is None else dict(first.outputs),
        float_outputs=wanted.get(FP32, {}),
    )


def summary(parity: Parity) -> str:
    """The worst figures in a few words, for progress and tables."""
    if not parity.comparisons:
        return parity.verdict
    outputs = [(comparison.reference, output) for comparison in parity.comparisons for output in comparison.outputs]
    cosines = [(output.cosine, reference) for reference, output in outputs if output.cosine is not None]
    worst = f", cosine {min(cosines)[0]:.4f} against {min(cosines)[1]}" if cosines else ""
    return f"{parity.verdict}{worst}"


def _run_engines(
    artifact: Artifact, target: Target, evaluation: Samples, timeout_s: float, observe: Observer
) -> tuple[dict[str, EngineRun], tuple[str, ...]]:
    """All engines that take the artifact. The device itself must; of several references one is enough."""
    runs: dict[str, EngineRun] = {}
    failed: dict[str, ToolchainError] = {}
    for name in engines(target):
        try:
            runs[name] = run_engine(artifact, evaluation, engine=name, timeout_s=timeout_s, observe=observe)
        except ToolchainError as error:
            if name == RUNNER:
                raise
            failed[name] = error
    if failed and not runs:
        raise next(iter(failed.values()))
    return runs, tuple(f"{name}: {error.message}" for name, error in failed.items())


def _references(graphs: Graphs, evaluation: Samples) -> dict[str, dict[str, Array]]:
    wanted: dict[str, dict[str, Array]] = {}
    if graphs.is_quantized:
        wanted[QUANTIZED] = run_reference(graphs.compiled, evaluation)
    if graphs.float_model is not None:
        wanted[FP32] = run_reference(graphs.float_model, evaluation)
    return wanted


def _comparisons(
    target: str, runs: dict[str, EngineRun], wanted: dict[str, dict[str, Array]]
) -> tuple[Comparison, ...]:
    """Each engine against each reference graph; reference implementations also against the first of them."""
    found: list[Comparison] = []
    first: tuple[str, EngineRun] | None = None
    try:
        for name, run in runs.items():
            label = target if run.basis != REFERENCE_BASIS else f"{target} ({name})"
            found += [
                compare(label, run.basis, reference, run.outputs, outputs) for reference, outputs in wanted.items()
            ]
            if run.basis == REFERENCE_BASIS and first is not None:
                found.append(compare(label, run.basis, first[0], run.outputs, first[1].outputs))
            elif run.basis == REFERENCE_BASIS:
                first = (name, run)
    except ValueError as error:
        raise RunError(f"{target}: {error}", advice="the toolchain changed an output's name or shape") from error
    return tuple(found)


def _localise(
    graphs: Graphs,
    evaluation: Samples,
    failed: set[str],
    build_probe: BuildProbe,
    timeout_s: float,
) -> tuple[tuple[Divergence, ...], tuple[str, ...]]:
    if failed == {ROWS_ALONE}:
        return (), ("the graph mixes the rows of a batch: build it with a fixed one",)
    try:
        if (QUANTIZED if graphs.is_quantized else FP32) in failed:
            where = engine_divergence(
                graphs.compiled,
                evaluation,
                build_probe,
                lambda probe, few: dict(run_engine(probe, few, timeout_s=timeout_s).outputs),
            )
            return where, (_blame("the toolchain", where),)
        if FP32 in failed and graphs.float_model is not None:
            where = quantization_divergence(graphs.float_model, graphs.compiled, evaluation)
            return where, (_blame("quantization", where),)
    except NpuopsError as error:
        return (), (f"the first node that diverges could not be found: {error.message}",)
    return (), ()


def _worst_first(evaluation: Samples, run: EngineRun | None, wanted: dict[str, Array]) -> Samples:
    """Localisation looks at a few samples only: at those that came out worst."""
    if run is None or not wanted:
        return evaluation
    noise = np.sum([_noise(run.outputs[name], array) for name, array in wanted.items()], axis=0)
    order = np.argsort(-noise, kind="stable")
    return replace(evaluation, inputs=tuple(evaluation.inputs[index] for index in order), labels=None)


def _noise(got: Array, wanted: Array) -> NDArray[np.float64]:
    """Σ difference² / Σ reference² of each sample; infinite where a value is not finite."""
    a, b = (np.asarray(array, dtype=np.float64).reshape(len(array), -1) for array in (got, wanted))
    with np.errstate(all="ignore"):
        ratio = ((a - b) ** 2).sum(axis=1) / np.maximum((b**2).sum(axis=1), 1e-300)
    return np.where(np.isnan(ratio), np.inf, ratio)


def _blame(who: str, where: tuple[Divergence, ...]) -> str:
    levels = [(float("inf") if tensor.sqnr_db is None else tensor.sqnr_db, tensor) for tensor in where]
    if not levels:
        return f"{who} is to blame, but no inner tensor can be compared"
    for level, tensor in levels:
        if level < DIVERGED_DB:
            return f"{who} is to blame: node {tensor.node!r} is the first that diverges (SQNR {level:.1f} dB)"
    level, tensor = min(levels, key=lambda pair: pair[0])
    if level == float("inf"):
        return "no inner tensor that can be compared differs from the reference"
    return f"{who} is to blame, but no single node: the worst is {tensor.node!r} (SQNR {level:.1f} dB)"


def _typical_us(run: EngineRun | None) -> tuple[float | None, str]:
    """The median of what the device says of itself if it is modelled, else of this host's clock; and its basis."""
    if run is None or run.basis == REFERENCE_BASIS or not run.run_us:
        return None, ""
    if run.modelled:
        return median(round(one.latency_us - one.wait_us, 3) for one in run.modelled), Basis.MODELLED
    return float(median(run.run_us[1:] or run.run_us)), run.basis
