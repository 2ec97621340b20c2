"""From weights to a policy's folder: ONNX, artifacts by `npuops build`, and the card that ties them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from npuops import __version__
from npuops.artifacts.disk import storage_errors
from npuops.artifacts.evidence import Verdict
from npuops.artifacts.folder import opened
from npuops.build.engine import engines, run_engine
from npuops.build.options import BuildOptions
from npuops.build.pipeline import BuildRequest, build
from npuops.errors import AccuracyError
from npuops.evaluate.samples import Samples as ModelInputs
from npuops.evaluate.samples import make_samples
from npuops.events import Event, Observer, StepFinished, ignore
from npuops.hostsched.objective import Trust
from npuops.hostsched.policy_card import (
    CARD_NAME,
    ONNX_NAME,
    WEIGHTS_NAME,
    Correction,
    PolicyFolder,
    card_of,
    open_policy,
    write_card,
)
from npuops.hostsched.policy_card import Trained as Training
from npuops.hostsched.scorer_network import NetworkShape, Weights
from npuops.schedlab.decisions import expect, expected, judged, same_choice, truth
from npuops.schedlab.export_onnx import HISTORY, HOST, LEVELS, TASKS, onnx_bytes
from npuops.schedlab.samples import Samples
from npuops.targets.child import call, progress
from npuops.targets.registry import open_target

CANDIDATES: Final = 64
CALIBRATION: Final = 128
"""States whose ranges quantization sees."""
JUDGED: Final = 64
"""States on which the decisions of an artifact are compared; others than those of the calibration."""
TIME_LIMIT_S: Final = 1800.0
SHIPPED: Final[Mapping[str, Mapping[str, str]]] = {
    # `basic`: the file suits every processor. One thread: a pool that spins would take what the policy should save.
    "ort-cpu": {"graph_optimization_level": "basic", "intra_op_num_threads": "1"},
    "qnn-htp:sm8650": {},
    "ethos-u:ethos-u85-256": {},
    "vnpu:rk3588": {},
}
"""Targets that the bundled policy is built for, with options of their compilers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What became of one target.

    Attributes:
        target: its name.
        bytes: of the artifact's file.
        choices: `decisions.same_choice` of INT8 on this target against float32; empty where nothing runs here.
    """

    target: str
    bytes: int
    choices: Mapping[str, float]


def build_policy(  # noqa: PLR0913 - what a policy is made of
    folder: Path,
    weights: Weights,
    shape: NetworkShape,
    samples: Samples,
    training: Training,
    *,
    name: str = "learned",
    targets: Mapping[str, Mapping[str, str]] = SHIPPED,
    candidates: int = CANDIDATES,
    trust: tuple[Trust, Trust] | None = None,
    correction: Correction | None = None,
    observe: Observer = ignore,
) -> tuple[PolicyFolder, tuple[Built, ...]]:
    """Write a policy: float32 weights, ONNX, an INT8 artifact for each target, gated, and the card.

    It is made in a process of its own: a build forks, which a process in which JAX has run must not do.

    Args:
        folder: made if absent; its files are replaced, the card last.
        weights: trained.
        shape: of the network.
        samples: typical ones; the first `CALIBRATION` of a fixed shuffle calibrate, the next ones judge.
        training: for the card; how the artifacts decide is added to its metrics.
        name: of the policy.
        targets: to build for, with vendor options.
        candidates: in one inference.
        trust: for the card: where it must guess, and where it is told.
        correction: for the card; the weights hold it already.
        observe: gets a `StepProgressed` for each step of the builds.

    Raises:
        AccuracyError: a gate says no; the folder then has no card.
        NpuopsError: of the step that could not be done.
    """
    shape.check(weights)
    samples.check(shape)
    order = np.random.default_rng(0).permutation(len(samples))
    given, judged_by = order[:CALIBRATION], order[CALIBRATION : CALIBRATION + JUDGED]
    arguments = {
        "folder": folder.absolute(),
        "weights": {key: np.asarray(weights[key], np.float32) for key in sorted(weights)},
        "shape": shape,
        "calibration": samples.rows(given),
        "judges": samples.rows(judged_by if len(judged_by) else given),
        "training": training,
        "name": name,
        "targets": {target: dict(vendor) for target, vendor in targets.items()},
        "candidates": candidates,
        "trust": trust or (Trust(), Trust()),
        "correction": correction,
    }
    reply = call(build_here, arguments, what=f"build of the policy {name}", timeout_s=TIME_LIMIT_S, observe=observe)
    built: tuple[Built, ...] = reply.value
    return open_policy(folder), built


def build_here(  # noqa: PLR0913, PLR0917 - as above
    folder: Path,
    weights: Mapping[str, NDArray[np.float32]],
    shape: NetworkShape,
    calibration: Samples,
    judges: Samples,
    training: Training,
    name: str,
    targets: Mapping[str, Mapping[str, str]],
    candidates: int,
    trust: tuple[Trust, Trust],
    correction: Correction | None = None,
) -> tuple[Built, ...]:
    """`build_policy` in this process, which must not have run JAX.

    Raises:
        AccuracyError: a gate says no.
        NpuopsError: of the step that could not be done.
    """
    with storage_errors("write", folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CARD_NAME).unlink(missing_ok=True)
        (folder / ONNX_NAME).write_bytes(onnx_bytes(weights, shape, candidates))
        with (folder / WEIGHTS_NAME).open("wb") as file:
            np.savez(file, **weights)
    as_given, as_judged = (as_inputs(some, shape.levels, candidates) for some in (calibration, judges))
    built: list[Built] = []
    for target, vendor in targets.items():
        request = BuildRequest(
            model=folder / ONNX_NAME,
            target=target,
            calibration=as_given,
            evaluation=as_judged,
            options=BuildOptions(metric="cosine", vendor=vendor, use_cache=False),
        )
        out = folder / file_name(target)
        _build(request, out, partial(_pass_on, len(built), len(targets)))
        choices = _choices(out, weights, judges, as_judged)
        built.append(Built(target=target, bytes=out.stat().st_size, choices=choices))
    metrics = {f"{one.target} {key}": value for one in built for key, value in one.choices.items()}
    card = card_of(
        name=name,
        version=__version__,
        trained=structs.replace(training, metrics={**training.metrics, **metrics}),
        shape=shape,
        candidates=candidates,
        trust=trust,
        root=folder,
        artifacts={one.target: file_name(one.target) for one in built},
        correction=correction,
    )
    write_card(folder, card)
    return tuple(built)


def _pass_on(number: int, total: int, event: Event) -> None:
    if isinstance(event, StepFinished):
        progress("build", number, total, f"{event.step}: {event.detail}")


def file_name(target: str) -> str:
    """Of a target's artifact in the folder."""
    return f"{target.replace(':', '-')}.npuart"


def as_inputs(samples: Samples, levels: int, candidates: int) -> ModelInputs:
    """Samples as the ONNX file takes them: a state each, its candidates cut off or repeated to so many.

    Args:
        samples: of any number of candidates.
        levels: that the network knows.
        candidates: that the file takes at once.
    """
    rows = (_row(samples, row, levels, candidates) for row in range(len(samples)))
    return make_samples(rows, source="samples of hostsched")


def _row(samples: Samples, row: int, levels: int, candidates: int) -> dict[str, NDArray[np.float32]]:
    chosen = np.resize(samples.levels[row], (candidates, samples.levels.shape[2]))
    one_hot = chosen[None] == np.arange(levels)[:, None, None]  # `ABSENT` meets no level
    return {
        TASKS: samples.tasks[row].T[None, :, None],
        HISTORY: samples.history[row].transpose(2, 1, 0)[None],
        HOST: samples.host[row][None, :, None, None],
        LEVELS: one_hot.astype(np.float32)[None],
    }


def _build(request: BuildRequest, out: Path, observe: Observer) -> None:
    gate = build(request, out, observe=observe).artifact.manifest.gate
    rules = gate.rules if gate else ()
    broken = [f"{rule.name} is {rule.found}" for rule in rules if rule.verdict is not Verdict.PASS]
    if gate is None or gate.verdict is not Verdict.PASS:
        raise AccuracyError(
            f"the policy built for {request.target} does not pass its gate: {'; '.join(broken)}",
            advice="look at the samples' ranges; train longer, or on more samples",
        )


def _choices(path: Path, weights: Weights, samples: Samples, inputs: ModelInputs) -> dict[str, float]:
    """How the artifact decides, beside float32; on at most as many candidates as it takes at once."""
    with opened(path) as artifact:
        if not engines(open_target(artifact.manifest.target)):
            return {}
        found = run_engine(artifact, inputs).outputs
    count, states = min(samples.candidates, found["faces"].shape[3]), len(samples)
    some = replace(samples, **{name: getattr(samples, name)[:, :count] for name in _PER_CANDIDATE})
    seen = expected(
        found["faces"][:, 0, :, :count].transpose(0, 2, 3, 1),
        found["waits"].reshape(states, -1),
        found["switches"].reshape(states, -1)[:, :count],
    )
    return dict(same_choice(judged(some, expect(weights, some)), judged(some, seen), truth(some)))


_PER_CANDIDATE: Final = ("levels", "miss", "miss_weight", "progress", "progress_weight", "switches")
