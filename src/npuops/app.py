"""The only place where concrete classes meet: which store, which clock, which data a word on the command line means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from npuops.artifacts.store import DirectoryStore
from npuops.build.options import BuildOptions
from npuops.build.pipeline import BuildRequest, BuildResult, build
from npuops.build.policy import GatePolicy
from npuops.build.sample_sources import load_samples
from npuops.build.samples import Samples
from npuops.clock import SystemClock
from npuops.config import load_options
from npuops.errors import DataError, UsageError
from npuops.events import Observer, ignore
from npuops.models.model import Model
from npuops.models.open import open_model
from npuops.models.zoo import zoo_model
from npuops.targets.registry import open_target

ZOO = "zoo:"
EVALUATION_LIMIT = 256
"""Samples for parity, where a run is fast."""
EMULATOR_LIMIT = 24
"""Samples for parity on an emulator: each costs up to a second and more."""
CALIBRATION_LIMIT = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model on the command line, and the data that comes with it when it is of the zoo."""

    path: Path
    calibration: str | None = None
    evaluation: str | None = None
    labels: tuple[str, ...] | None = None


def find_model(words: str) -> Source:
    """A path, or `zoo:NAME` for a model of the bundled zoo.

    Raises:
        UsageError: no such model in the zoo.
    """
    if not words.startswith(ZOO):
        return Source(path=Path(words))
    model = zoo_model(words.removeprefix(ZOO))
    return Source(
        path=model.model,
        calibration=str(model.calibration),
        evaluation=str(model.evaluation),
        labels=model.class_names(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildWords:
    """A build in the words of the command line."""

    model: str
    target: str
    calibration: str | None = None
    evaluation: str | None = None
    labels: Path | None = None
    policy: Path | None = None
    calibration_limit: int = CALIBRATION_LIMIT
    evaluation_limit: int | None = None
    shapes: Mapping[str, tuple[int, ...]] | None = None


def run_build(words: BuildWords, options: BuildOptions, out: Path, *, observe: Observer = ignore) -> BuildResult:
    """Load the data and build into `out`, with the cache of this user.

    Raises:
        NpuopsError: whatever is wrong with the words, the data, the model or the toolchain.
    """
    source = find_model(words.model)
    model = open_model(source.path, shapes=words.shapes)
    target = open_target(words.target)
    limit = words.evaluation_limit or (EMULATOR_LIMIT if target.traits.slow_run else EVALUATION_LIMIT)
    request = BuildRequest(
        model=source.path,
        target=words.target,
        calibration=_samples(words.calibration or source.calibration, model, words.calibration_limit),
        evaluation=_samples(words.evaluation or source.evaluation, model, limit),
        options=options,
        policy=load_options(GatePolicy, words.policy) if words.policy else GatePolicy(),
        labels=read_labels(words.labels) if words.labels else source.labels,
        shapes=dict(words.shapes or {}),
    )
    return run_request(request, out, observe=observe)


def run_request(request: BuildRequest, out: Path, *, observe: Observer = ignore) -> BuildResult:
    """Build with the system's clock and the cache of this user, unless the options say no cache."""
    clock = SystemClock()
    store = DirectoryStore(clock=clock, observe=observe) if request.options.use_cache else None
    return build(request, out, store=store, clock=clock, observe=observe)


def read_labels(path: Path) -> tuple[str, ...]:
    """One class name a line.

    Raises:
        DataError: the file cannot be read or is empty.
    """
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the labels in {path}: {error}") from error
    if not names:
        raise DataError(f"{path} has no labels", advice="one class name a line, in the order of the outputs")
    return names


def parse_shape(words: str) -> tuple[str, tuple[int, ...]]:
    """`name=1x3x224x224` → name and sizes.

    Raises:
        UsageError: not of that form, or a size below one.
    """
    name, _, sizes = words.rpartition("=")
    parts = sizes.split("x")
    if not name or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"shape {words!r} is not of the form NAME=1x3x224x224")
    return name, tuple(int(part) for part in parts)


def parse_drop(words: str) -> float:
    """`1%` or `0.01` → 0.01.

    Raises:
        UsageError: no number between 0 and 1.
    """
    try:
        value = float(words.removesuffix("%")) / (100 if words.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise UsageError(f"drop {words!r} is not between 0 and 1", advice="for example --max-drop 1% or 0.01")
    return value


def _samples(source: str | None, model: Model, limit: int) -> Samples | None:
    return None if source is None else load_samples(source, model.inputs, limit=limit)
