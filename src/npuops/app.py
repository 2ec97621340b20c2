"""The only place where concrete classes meet: which store, which clock, which data a word on the command line means."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from npuops.artifacts.cache_limit import cache_limit
from npuops.artifacts.store import CACHE_VARIABLE, DirectoryStore
from npuops.build.batch_step import keeps_batch, shapes_of_one_row
from npuops.build.options import BuildOptions
from npuops.build.pipeline import BuildRequest, BuildResult, build
from npuops.build.policy import GatePolicy
from npuops.build.publish import refuse_occupied
from npuops.clock import SystemClock
from npuops.config import load_options
from npuops.errors import DataError, StorageError, UsageError
from npuops.evaluate.image_folder import class_folders
from npuops.evaluate.sample_sources import load_samples
from npuops.evaluate.samples import Samples
from npuops.events import Observer, Warned, ignore
from npuops.models.model import Model, ModelFormat
from npuops.models.open import as_onnx, open_model
from npuops.models.preprocessing import ImagePreprocessing
from npuops.models.zoo import PREFIX, zoo_model
from npuops.private_folder import private_folder
from npuops.targets.protocol import Target
from npuops.targets.registry import open_target

EVALUATION_LIMIT = 256
"""Samples for parity, where a run is fast."""
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
    if not words.startswith(PREFIX):
        return Source(path=Path(words))
    model = zoo_model(words.removeprefix(PREFIX))
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
    image: ImagePreprocessing | None = None
    """How pixels become numbers; None where the user said nothing."""
    pipeline: str | None = None
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
    refuse_occupied(out)
    target = open_target(words.target)  # an unknown name is said before any data is read
    source = find_model(words.model)
    policy = load_options(GatePolicy, words.policy) if words.policy else GatePolicy()
    labels = read_labels(words.labels) if words.labels else source.labels
    model = _as_built(source.path, words.shapes or {}, target, options)
    limit = EVALUATION_LIMIT if words.evaluation_limit is None else words.evaluation_limit
    calibration, evaluation = words.calibration or source.calibration, words.evaluation or source.evaluation
    # Labels are asked of the set that parity and accuracy are measured on; calibration alone needs none.
    asked = labels if evaluation is None else None
    request = BuildRequest(
        model=source.path,
        target=words.target,
        calibration=_samples(calibration, model, words.calibration_limit, words.image, asked),
        evaluation=_samples(evaluation, model, limit, words.image, labels),
        engine_samples=words.evaluation_limit,
        options=options,
        policy=policy,
        labels=labels,
        shapes=dict(words.shapes or {}),
        image=words.image,
        pipeline=words.pipeline,
    )
    _warn_misfit(labels, model, observe)
    _warn_unlabelled(request.evaluation or request.calibration, observe)
    return run_request(request, out, observe=observe)


def _as_built(path: Path, shapes: Mapping[str, tuple[int, ...]], target: Target, options: BuildOptions) -> Model:
    """The model with the inputs of one inference: an integer TFLite file gets float ones by its import."""
    model = open_model(path, shapes=shapes)
    if keeps_batch(model, target, options):
        shapes = shapes_of_one_row(model, shapes)
        model = open_model(path, shapes=shapes)
    if model.format is ModelFormat.ONNX:
        return model
    with private_folder() as folder:
        return open_model(as_onnx(path, folder / "imported.onnx", shapes=shapes))


def run_request(request: BuildRequest, out: Path, *, observe: Observer = ignore) -> BuildResult:
    """Build with the system's clock and the cache of this user, unless the options say no cache.

    Afterwards the cache is brought back to its limit.

    Raises:
        NpuopsError: as `build`; also when the cache cannot be written or its limit is no size.
    """
    clock = SystemClock()
    if not request.options.use_cache:
        return build(request, out, store=None, clock=clock, observe=observe)
    limit_bytes = cache_limit()
    store = DirectoryStore(clock=clock, observe=observe)
    _refuse_unusable(store.root)
    result = build(request, out, store=store, clock=clock, observe=observe)
    if not result.cached:
        _keep_within(store, limit_bytes, observe)
    return result


def _keep_within(store: DirectoryStore, limit_bytes: int, observe: Observer) -> None:
    """Not below the limit: what was set aside as damaged stays for a look until room is needed."""
    try:
        if sum(entry.bytes for entry in store.list()) > limit_bytes:
            store.prune(limit_bytes)
    except StorageError as error:
        # The build is through and published; that must not turn into a failure.
        observe(Warned(step="cache", message=f"the cache cannot be pruned: {error.message}", advice=error.advice))


def _refuse_unusable(root: Path) -> None:
    advice = f"name a folder of yours in ${CACHE_VARIABLE}, or build with --no-cache"
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(f"cannot make the cache {root}: {error.strerror}", advice=advice) from error
    if not os.access(root, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write to the cache {root}", advice=advice)


def _warn_misfit(labels: tuple[str, ...] | None, model: Model, observe: Observer) -> None:
    """Names that do not fit cannot be shown with scores; a detector's may be of use elsewhere, so it is no error."""
    if labels is None or not model.outputs or not model.outputs[0].shape:
        return
    first = model.outputs[0].shape[-1]
    if isinstance(first, int) and first != len(labels):
        message = f"{len(labels)} class names for the {first} values of output {model.outputs[0].name!r}"
        observe(Warned(step="data", message=message, advice="`npuops run` shows names only where they fit"))


def _warn_unlabelled(samples: Samples | None, observe: Observer) -> None:
    if samples is None or samples.image is None or samples.labels is not None:
        return
    names = class_folders(Path(samples.source))
    if names:
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        message = f"the subfolders {shown} of {samples.source} say nothing about the model's classes"
        observe(Warned(step="data", message=message, advice="give class names with --labels, or name them by number"))


def read_labels(path: Path) -> tuple[str, ...]:
    """One class name a line; blank lines at the end do not count, nor does the mark that Windows puts at the beginning.

    Raises:
        DataError: the file cannot be read or is empty.
    """
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines())
    except OSError as error:
        raise DataError(f"cannot read the labels in {path}: {error.strerror}", advice="check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}", advice="one class name a line") from error
    if not names:
        raise DataError(f"{path} has no labels", advice="one class name a line, in the order of the outputs")
    return names


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


def _samples(
    source: str | None,
    model: Model,
    limit: int,
    image: ImagePreprocessing | None,
    class_names: tuple[str, ...] | None,
) -> Samples | None:
    if source is None:
        return None
    return load_samples(source, model.inputs, limit=limit, image=image, class_names=class_names)
