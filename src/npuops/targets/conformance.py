"""The promises of a `Target`, as checks that anybody's target can be held against.

`npuops.testing.check_target` calls `check_all`; each check raises `BrokenPromiseError` with what was found.
They need no vendor hardware: what cannot run here is skipped by name, with the probe's own words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from npuops.artifacts.manifest import Artifact, CompileRecord, FileRecord, Manifest, ModelIdentity, Role
from npuops.errors import DataError, NpuopsError, OptionError, ToolchainError
from npuops.models.model import Model
from npuops.models.placement import placement_report
from npuops.targets.child import call
from npuops.targets.protocol import Compilation, CompileOptions, Precision, Runner, Session, Target, Tensors
from npuops.targets.registry import open_target


class BrokenPromiseError(ToolchainError, AssertionError):
    """A target does not do what the seam promises: its toolchain, or our file for it, is broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One promise: kept, or skipped with the reason."""

    promise: str
    skipped: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A target under test, a model that it should take, one input for it, and a scratch folder."""

    target: Target
    model: Model
    precision: Precision
    inputs: Tensors
    scratch: Path


def check_all(subject: Subject, *, timeout_s: float = 300.0) -> tuple[Outcome, ...]:
    """Hold the target against every promise.

    Raises:
        BrokenPromiseError: the first promise that does not hold.
    """
    early = (name_round_trips, probe_answers, check_needs_no_toolchain)
    outcomes = [_kept(check.__name__, partial(check, subject)) for check in early]
    target, probe = subject.target, subject.target.probe()
    rest: tuple[Callable[[Subject], None], ...] = (
        compile_is_deterministic,
        nonsense_options_are_refused,
        sessions_obey,
    )
    if not probe.available:
        return (*outcomes, *(Outcome(promise=check.__name__, skipped=probe.why_not) for check in rest))
    for check in rest:
        name = check.__name__
        if check is sessions_obey and target.runner is None and not target.references:
            outcomes.append(Outcome(promise=name, skipped=f"nothing on this machine runs what {target.name} compiles"))
            continue
        # Vendor code runs in a child here as everywhere; the child raises what the check raises.
        what = f"{target.name} {name}"
        outcomes.append(_kept(name, partial(call, check, {"subject": subject}, what=what, timeout_s=timeout_s)))
    return tuple(outcomes)


def name_round_trips(subject: Subject) -> None:
    """`open_target(target.name)` gives a target of the same name."""
    again = open_target(subject.target.name).name
    _promise(again == subject.target.name, f"open_target({subject.target.name!r}) is named {again!r}")


def probe_answers(subject: Subject) -> None:
    """A probe never raises; when the toolchain is missing it says why and what to install."""
    probe = subject.target.probe()
    _promise(probe.target == subject.target.name, f"the probe speaks of {probe.target!r}")
    if probe.available:
        _promise(bool(probe.toolchain), "an available toolchain names its versions")
    else:
        _promise(bool(probe.why_not) and bool(probe.install), "a missing toolchain says why, and what to install")


def check_needs_no_toolchain(subject: Subject) -> None:
    """`check` judges every layer, in order, by rules in words."""
    report = subject.target.check(subject.model)
    wanted = [layer.name for layer in subject.model.layers]
    _promise([node.name for node in report.placement.nodes] == wanted, "the report names every layer in order")
    _promise(all(node.rule for node in report.placement.nodes), "every node has a rule in words")


def compile_is_deterministic(subject: Subject) -> None:
    """The same model and options give the same bytes: the cache and the signature rely on it."""
    first, second = (_compile(subject, subject.scratch / name) for name in ("first", "second"))
    _promise(first.entry in first.files, "the entry is one of the files")
    spare = set(first.reference_files)
    _promise(spare <= set(first.files) - {first.entry}, "reference files are files, and the entry is none of them")
    _promise(first.files == second.files, f"file names differ: {first.files} and {second.files}")
    for name in first.files:
        same = (subject.scratch / "first" / name).read_bytes() == (subject.scratch / "second" / name).read_bytes()
        _promise(same, f"{name} differs between two compilations")


def nonsense_options_are_refused(subject: Subject) -> None:
    """An unknown vendor option is an error of ours before the vendor sees it."""
    folder = _folder(subject.scratch / "nonsense")
    options = CompileOptions(precision=subject.precision, vendor={"no_such_option_at_all": "1"})
    try:
        subject.target.compile(subject.model, options, folder)
    except OptionError:
        return
    raise BrokenPromiseError("compile accepted the option 'no_such_option_at_all'")


def sessions_obey(subject: Subject) -> None:
    """Sessions answer in the model's words, refuse wrong inputs, survive them, and close twice."""
    artifact = as_artifact(subject, _compile(subject, subject.scratch / "session"), subject.scratch / "session")
    runner = subject.target.runner
    runners = {**subject.target.references, **({} if runner is None else {"runner": runner})}
    for engine in runners.values():
        _session_obeys(subject, engine, artifact)


def _session_obeys(subject: Subject, runner: Runner, artifact: Artifact) -> None:
    session = runner.open(artifact)
    wanted = session.run(subject.inputs)
    for tensor in subject.model.outputs:
        got = wanted.get(tensor.name)
        _promise(got is not None, f"output {tensor.name!r} is missing")
        if got is not None and tensor.is_static:
            _promise(got.shape == tensor.shape, f"{tensor.name}: shape {got.shape}, the model says {tensor.shape}")
            _promise(got.dtype.name == tensor.dtype, f"{tensor.name}: {got.dtype}, the model says {tensor.dtype}")
    for wrong in _wrong_inputs(subject.inputs):
        _refuses(session, wrong)
    again = session.run(subject.inputs)
    for name, array in wanted.items():
        _promise(bool(np.array_equal(array, again[name])), f"{name} changed after refused inputs")
    session.close()
    session.close()


def as_artifact(subject: Subject, compilation: Compilation, root: Path) -> Artifact:
    """What a compilation left, in the form that a runner takes, with no evidence yet."""
    model = subject.model
    manifest = Manifest(
        created="1970-01-01T00:00:00Z",
        npuops="0",
        model=ModelIdentity(
            name=model.path.name,
            digest=model.digest,
            format=model.format,
            opset=model.opset,
            macs=model.macs,
            weight_bytes=model.weight_bytes,
        ),
        target=subject.target.name,
        precision=subject.precision,
        inputs=model.inputs,
        outputs=model.outputs,
        entry=compilation.entry,
        files=tuple(FileRecord(name=name, role=Role.COMPILED, sha256="", bytes=0) for name in compilation.files),
        quantization=None,
        placement=placement_report(model, subject.target.check(model).placement.nodes),
        toolchain=subject.target.probe().toolchain,
        compatibility=compilation.compatibility,
        compile=CompileRecord(seconds=0.0, cache_key="", notes=compilation.notes),
    )
    return Artifact(root=root, manifest=manifest)


def _wrong_inputs(inputs: Tensors) -> tuple[dict[str, Any], ...]:
    name, array = next(iter(inputs.items()))
    other = np.float64 if array.dtype != np.float64 else np.float32
    return (
        {**inputs, "no_such_input": array},
        {key: value for key, value in inputs.items() if key != name},
        {**inputs, name: array.astype(other)},
        {**inputs, name: array[np.newaxis]},
    )


def _refuses(session: Session, wrong: Tensors) -> None:
    try:
        session.run(wrong)
    except DataError:
        return
    shapes = {name: (array.dtype.name, array.shape) for name, array in wrong.items()}
    raise BrokenPromiseError(f"a session took the wrong inputs {shapes}")


def _compile(subject: Subject, folder: Path) -> Compilation:
    return subject.target.compile(subject.model, CompileOptions(precision=subject.precision), _folder(folder))


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _kept(promise: str, check: Callable[[], object]) -> Outcome:
    try:
        check()
    except Exception as error:
        words = error.message if isinstance(error, NpuopsError) else str(error)
        raise BrokenPromiseError(f"{promise}: {type(error).__name__}: {words}") from error
    return Outcome(promise=promise)


def _promise(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BrokenPromiseError(otherwise)
