"""Run an artifact's engine on samples, in a child process with a time limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.manifest import Artifact
from npuops.clock import SystemClock
from npuops.errors import RunError, UsageError, nearest
from npuops.evaluate.samples import Samples
from npuops.events import Observer, ignore
from npuops.targets.child import call, progress
from npuops.targets.protocol import ModelledRun, ModelledSession, Runner, Target, Tensors
from npuops.targets.registry import open_target

RUNNER = "runner"
"""The engine that executes on the device, an emulator, or this CPU."""

REFERENCE_BASIS = "reference"
"""Basis of a reference implementation's outputs: exact arithmetic, and no time that means anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRun:
    """What an engine answered, and how long each run took on this host."""

    outputs: Mapping[str, NDArray[Any]]
    """Output name → array [samples, *output shape]."""
    run_us: tuple[float, ...]
    """One per sample; the first one includes warm-up."""
    open_us: float
    """Load time of the artifact."""
    basis: str
    """What the times mean: a `Basis`, or `reference`."""
    modelled: tuple[ModelledRun, ...] = ()
    """One per sample, of a device that is modelled."""


def engines(target: Target) -> tuple[str, ...]:
    """Names that `run_engine` takes for this target: `runner` if it has one, then its references."""
    return ((RUNNER,) if target.runner is not None else ()) + tuple(target.references)


def run_engine(
    artifact: Artifact,
    samples: Samples,
    *,
    engine: str | None = None,
    timeout_s: float = 600.0,
    observe: Observer = ignore,
) -> EngineRun:
    """Outputs of every sample on one of the target's engines.

    Args:
        artifact: verified, or being built by this process.
        samples: inputs in the source model's names, shapes and dtypes.
        engine: `runner` or the name of a reference; the first that exists when None.
        timeout_s: for all samples together.
        observe: gets `StepProgressed(step="run")`.

    Raises:
        UsageError: the target has no such engine on a host; the advice names those it has.
        ToolchainError: the vendor's code failed, crashed or took too long.
    """
    arguments = {"artifact": artifact, "inputs": samples.inputs, "engine": engine}
    target = artifact.manifest.target
    reply = call(_run_all, arguments, what=f"{target} run", timeout_s=timeout_s, observe=observe)
    assert isinstance(reply.value, EngineRun)  # noqa: S101 - for the type checker: _run_all returns nothing else
    return reply.value


def pick_engine(target: Target, engine: str | None) -> tuple[str, Runner]:
    """The named engine, or the target's first.

    Raises:
        UsageError: it has none of that name, or none at all.
    """
    available = engines(target)
    if not available:
        raise UsageError(f"nothing on this machine can run an artifact of {target.name}")
    name = engine or available[0]
    if name == RUNNER and target.runner is not None:
        return name, target.runner
    if name in target.references:
        return name, target.references[name]
    raise UsageError(
        f"{target.name} has no engine {name!r} on this machine",
        advice=f"{nearest(name, available)}; choose it with --engine",
    )


def _run_all(artifact: Artifact, inputs: tuple[Tensors, ...], engine: str | None) -> EngineRun:
    clock = SystemClock()
    target = open_target(artifact.manifest.target)
    name, runner = pick_engine(target, engine)
    started = clock.now_us()
    session = runner.open(artifact)
    opened = clock.now_us()
    rows: list[dict[str, NDArray[Any]]] = []
    times: list[float] = []
    modelled: list[ModelledRun | None] = []
    for number, sample in enumerate(inputs, start=1):
        before = clock.now_us()
        rows.append(session.run(sample))
        times.append(float(clock.now_us() - before))
        if isinstance(session, ModelledSession):
            modelled.append(session.modelled())
        progress("run", number, len(inputs), detail=target.name)
    session.close()
    return EngineRun(
        outputs=_stacked(rows),
        run_us=tuple(times),
        open_us=float(opened - started),
        basis=str(target.traits.run_basis) if name == RUNNER else REFERENCE_BASIS,
        modelled=tuple(run for run in modelled if run is not None),
    )


def _stacked(rows: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    if not rows:
        return {}
    try:
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    except ValueError as error:
        raise RunError(f"an output's shape changed from sample to sample: {error}") from error
