"""`npuops build`: check → quantize → compile → prove → gate, and one verified artifact at the end.

`build` is the loop that acts; what it decides, it asks of judges (`fallback`, `parity`, `gate`).
The same request with the same toolchain is answered from the store in less than a second.
"""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from npuops.artifacts.disk import storage_errors
from npuops.artifacts.evidence import Accuracy, Parity
from npuops.artifacts.folder import write_artifact
from npuops.artifacts.manifest import MANIFEST_NAME, Artifact, FileRecord, ModelIdentity, Role
from npuops.artifacts.store import Store
from npuops.build.batch_step import freed, keeps_batch, shapes_of_one_row
from npuops.build.compile import (
    Work,
    code_identity,
    compile_model,
    compile_probe,
    digest_key,
    keep,
    timestamp,
    toolchain_identity,
)
from npuops.build.options import BuildOptions
from npuops.build.policy import GatePolicy
from npuops.build.prove import Graphs, Proof, prove, summary
from npuops.build.publish import copy_folder, publish, refuse_occupied, workspace
from npuops.build.quantize_step import Prepared, prepare_graphs
from npuops.build.serving_steps import check_kind, image_classification
from npuops.build.verdict import build_gate
from npuops.clock import Clock, SystemClock
from npuops.errors import DataError, MissingToolchainError, OptionError, UsageError
from npuops.evaluate.accuracy import find_metric, measure_accuracy, metric_identity
from npuops.evaluate.sample_sources import random_samples
from npuops.evaluate.samples import Samples
from npuops.events import Observer, StepFinished, StepStarted, Warned, ignore
from npuops.models.model import Model
from npuops.models.onnx_file import digest_of
from npuops.models.open import as_onnx, open_model
from npuops.models.preprocessing import ImagePreprocessing
from npuops.models.steps import Pipeline
from npuops.rewrite.analyse import PRECISION, analyse
from npuops.targets.protocol import CompileOptions, Precision, Target
from npuops.targets.registry import open_target
from npuops.targets.report import SupportReport
from npuops.targets.vendor_options import checked_options

QUANTIZED_NAME = "quantized.onnx"
RANDOM_SAMPLES = 16
EMULATOR_SAMPLES = 24
"""What an emulator runs for parity: each sample costs up to a second and more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What to build."""

    model: Path
    """ONNX or TFLite."""
    target: str
    calibration: Samples | None = None
    """Needed when the precision is quantized and the model is not."""
    evaluation: Samples | None = None
    """For a mix, parity and accuracy; the calibration set stands in when it is missing, with a warning."""
    engine_samples: int | None = None
    """How many of them the engine runs; None: all, or `EMULATOR_SAMPLES` where it is an emulator."""
    options: BuildOptions = field(default_factory=BuildOptions)
    policy: GatePolicy = field(default_factory=GatePolicy)
    labels: tuple[str, ...] | None = None
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    image: ImagePreprocessing | None = None
    """How pixels become the input; by default as in the samples, if these were images."""
    pipeline: str | None = None
    """Of `serving_steps.KINDS`: what a server does around an inference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What came out. Look at the manifest's gate before use."""

    artifact: Artifact
    cached: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A request with everything that was looked up for it."""

    request: BuildRequest
    target: Target
    precision: Precision
    store: Store | None
    clock: Clock
    observe: Observer
    pipeline: Pipeline | None = None


def build(
    request: BuildRequest,
    out: Path,
    *,
    store: Store | None = None,
    clock: Clock | None = None,
    observe: Observer = ignore,
) -> BuildResult:
    """Build an artifact.

    A build whose gate says no is written too: its manifest says why, and `npuops gate` refuses it.

    Args:
        request: model, target, data, options.
        out: a folder, or a file if its suffix is `.npuart`. It must not exist, or be an artifact, which is replaced
            when the build is through.
        store: the cache of compilations and builds; None does everything again.
        clock: measures the steps.
        observe: gets `StepStarted`, `StepProgressed`, `StepFinished`, `Warned`.

    Raises:
        NpuopsError: of the step that could not be done; `out` is as it was.
    """
    clock = clock or SystemClock()
    started = clock.now_us()
    refuse_occupied(out)
    request = replace(request, image=_image(request))
    find_metric(request.options.metric)  # a slip in its name must not come out after the compilation
    check_kind(request.pipeline)
    target = open_target(request.target)
    probe = target.probe()
    if not probe.available:
        raise MissingToolchainError(f"{target.name}: {probe.why_not}", advice=probe.install)
    _warn_unsigned(request.policy, observe)
    traits = target.traits
    checked_options(target.name, request.options.vendor, traits.vendor_options, reserved=traits.reserved_options)
    job = _Job(
        request=request,
        target=target,
        precision=_precision(request.options, target),
        store=store,
        clock=clock,
        observe=observe,
    )
    key = _build_key(job)
    with store.lock(key) if store is not None else nullcontext(), workspace() as work:
        found = store.get(key) if store is not None else None
        if found is None:
            artifact = _build_fresh(job, work)
            if store is not None:
                keep(store, key, artifact.root, observe)
        else:
            observe(StepFinished(step="build", seconds=0.0, detail="the same build is in the cache"))
            artifact = Artifact(work / "cached", found.manifest)
            with storage_errors("copy to", artifact.root):
                copy_folder(found.root, artifact.root)
        published = publish(artifact, out)
    return BuildResult(artifact=published, cached=found is not None, seconds=(clock.now_us() - started) / 1e6)


def _warn_unsigned(policy: GatePolicy, observe: Observer) -> None:
    if policy.signature.required:
        words = "the policy demands a signature, which comes after the build"
        observe(Warned(step="gate", message=words, advice="npuops sign, then npuops gate with the same policy"))


def _build_fresh(job: _Job, work: Path) -> Artifact:
    request = job.request
    given = open_model(request.model, shapes=request.shapes)
    any_batch = keeps_batch(given, job.target, request.options)
    shapes = shapes_of_one_row(given, request.shapes) if any_batch else request.shapes
    source_path = as_onnx(request.model, work / "source.onnx", shapes=shapes)
    source = open_model(source_path)
    if request.pipeline is not None:
        job = replace(job, pipeline=image_classification(source, request.image, request.labels))
    report = _check(job, source)
    samples = _evaluation(job, source)
    prepared = prepare_graphs(
        source,
        traits=job.target.traits,
        precision=job.precision,
        options=request.options,
        calibration=request.calibration,
        evaluation=samples,
        folder=work,
        clock=job.clock,
        observe=job.observe,
    )
    if any_batch:
        prepared = freed(prepared, work)
    compiled_model = open_model(prepared.compiled)
    draft = _compile(job, source, given, compiled_model, prepared, work)
    shown = samples.first(_engine_samples(job, samples))
    proof = _prove(job, draft, prepared, shown)
    accuracy = _accuracy(job, proof, shown)
    return _seal(job, draft, prepared, report, proof.parity, accuracy, work)


def _check(job: _Job, source: Model) -> SupportReport:
    started = job.clock.now_us()
    job.observe(StepStarted(step="check", detail=job.target.name))
    report = analyse(source, job.target)
    ratio = report.placement.fallback_ratio
    words = f"{ratio.ops:.0%} of operators fall back" if ratio.ops else "every operator is supported"
    job.observe(StepFinished(step="check", seconds=_seconds(job.clock, started), detail=words))
    for advice in (advice for advice in report.advice if advice.pattern != PRECISION):
        job.observe(Warned(step="check", message=advice.message, advice=f"--fix {advice.fix}" if advice.fix else ""))
    return report


def _evaluation(job: _Job, source: Model) -> Samples:
    """The evaluation set; without one, the calibration set; without that, random inputs. Each step down is said."""
    request = job.request
    if request.evaluation is not None:
        if not len(request.evaluation):
            raise DataError(f"{request.evaluation.source}: no sample", advice="give at least one with --eval")
        return request.evaluation
    if request.calibration is not None:
        words, samples = "no evaluation set: parity is judged on the calibration set", request.calibration
    else:
        words, samples = (
            "no data at all: parity is judged on random inputs",
            random_samples(source.inputs, RANDOM_SAMPLES, 0),
        )
    job.observe(Warned(step="parity", message=words, advice="give held-out inputs with --eval"))
    return samples


def _engine_samples(job: _Job, samples: Samples) -> int:
    if job.request.engine_samples is not None:
        return job.request.engine_samples
    return EMULATOR_SAMPLES if job.target.traits.slow_run else len(samples)


def _compile(job: _Job, source: Model, given: Model, model: Model, prepared: Prepared, work: Path) -> Artifact:
    identity = ModelIdentity(
        name=job.request.model.name,
        digest=given.digest,
        format=str(given.format),
        opset=source.opset,
        macs=source.macs,
        weight_bytes=source.weight_bytes,
    )
    return compile_model(
        Work(source=identity, model=model, quantization=prepared.quantization),
        job.target,
        CompileOptions(precision=job.precision, vendor=job.request.options.vendor),
        work / "draft",
        store=job.store,
        clock=job.clock,
        timeout_s=job.request.options.time_limit_s,
        observe=job.observe,
    )


def _prove(job: _Job, draft: Artifact, prepared: Prepared, samples: Samples) -> Proof:
    started = job.clock.now_us()
    job.observe(StepStarted(step="parity", detail=f"{len(samples)} samples"))
    limit_s = job.request.options.time_limit_s

    def build_probe(path: Path, folder: Path) -> Artifact:
        return compile_probe(draft, open_model(path), folder, timeout_s=limit_s)

    proof = prove(
        draft,
        job.target,
        Graphs(compiled=prepared.compiled, float_model=prepared.float_model, is_quantized=prepared.is_quantized),
        samples,
        limits=job.request.options.parity_limits,
        build_probe=build_probe,
        timeout_s=limit_s,
        observe=job.observe,
    )
    job.observe(StepFinished(step="parity", seconds=_seconds(job.clock, started), detail=summary(proof.parity)))
    return proof


def _accuracy(job: _Job, proof: Proof, samples: Samples) -> Accuracy | None:
    """The task metric, where there are labels or the user asked for it, and something ran. NaN has no accuracy."""
    options = job.request.options
    asked = options.max_drop is not None or samples.labels is not None or options.metric != BuildOptions().metric
    finite = all(output.finite for comparison in proof.parity.comparisons for output in comparison.outputs)
    if not asked or not finite or not proof.engine_outputs or not proof.float_outputs:
        return None
    metric = find_metric(options.metric)
    return measure_accuracy(metric, artifact=proof.engine_outputs, fp32=proof.float_outputs, labels=samples.labels)


def _seal(
    job: _Job,
    draft: Artifact,
    prepared: Prepared,
    report: SupportReport,
    parity: Parity,
    accuracy: Accuracy | None,
    work: Path,
) -> Artifact:
    """The draft's files, the quantized graph, and all evidence under one manifest."""
    folder = work / "artifact"
    with storage_errors("write", folder):
        copy_folder(draft.root, folder)
        (folder / MANIFEST_NAME).unlink()
        if prepared.quantization is not None:
            shutil.copyfile(prepared.compiled, folder / QUANTIZED_NAME)
    files = draft.manifest.files
    if prepared.quantization is not None:
        files += (FileRecord(name=QUANTIZED_NAME, role=Role.QUANTIZED, sha256="", bytes=0),)
    manifest = replace(
        draft.manifest,
        created=timestamp(),
        files=files,
        parity=parity,
        accuracy=accuracy,
        labels=job.request.labels,
        image=job.request.image,
        pipeline=job.pipeline,
    )
    gate = build_gate(manifest, job.request.policy, job.request.options, report)
    return write_artifact(folder, replace(manifest, gate=gate))


def _precision(options: BuildOptions, target: Target) -> Precision:
    known = target.traits.precisions
    if options.precision is None:
        mixed = options.max_drop is not None and Precision.A16W8 in known
        return Precision.MIXED if mixed else target.traits.default_precision
    wanted = options.precision
    if wanted in known or (wanted is Precision.MIXED and Precision.A16W8 in known):
        return wanted
    raise OptionError(f"{target.name} has no precision {wanted}", advice=f"it has: {', '.join(known)}")


def _build_key(job: _Job) -> str:
    request = job.request
    return digest_key(
        "build",
        {
            "npuops": code_identity(),
            "model": digest_of(request.model),
            "name": request.model.name,
            "target": job.target.name,
            "precision": job.precision,
            "toolchain": toolchain_identity(job.target),
            "calibration": request.calibration.digest if request.calibration else None,
            "evaluation": request.evaluation.digest if request.evaluation else None,
            "engine_samples": request.engine_samples,
            "metric": metric_identity(request.options.metric),
            "options": asdict(request.options),
            "policy": asdict(request.policy),
            "labels": request.labels,
            "image": request.image,
            "pipeline": request.pipeline,
            "shapes": request.shapes,
        },
    )


def _image(request: BuildRequest) -> ImagePreprocessing | None:
    """What the manifest says of pixels; what was read must have been read like that."""
    sets = (request.calibration, request.evaluation)
    known = {samples.image for samples in sets if samples is not None and samples.image is not None}
    known |= {request.image} if request.image is not None else set()
    if len(known) > 1:
        words = "; ".join(sorted(image.words for image in known))
        raise UsageError(f"images were read in different ways: {words}", advice="read them all in one way")
    return next(iter(known), None)


def _seconds(clock: Clock, started_us: int) -> float:
    return (clock.now_us() - started_us) / 1e6
