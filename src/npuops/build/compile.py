"""Compile in a child process with a time limit, and keep what was compiled in the content-addressed store.

What comes out is a *draft*: a whole artifact whose manifest has no evidence yet.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

import msgspec

import npuops
from npuops.artifacts.disk import storage_errors
from npuops.artifacts.folder import write_artifact
from npuops.artifacts.manifest import (
    Artifact,
    CompileRecord,
    FileRecord,
    Manifest,
    ModelIdentity,
    Quantization,
    Role,
)
from npuops.artifacts.store import Store
from npuops.build.publish import copy_folder
from npuops.clock import Clock
from npuops.errors import StorageError
from npuops.events import Observer, StepFinished, StepStarted, Warned, ignore
from npuops.models.model import QDQ_OPS, Model
from npuops.models.placement import FallbackRatio, Placement, PlacementReport, RunsOn
from npuops.targets.child import call
from npuops.targets.protocol import Compilation, CompileOptions, Precision, Target
from npuops.targets.registry import open_target

STEP = "compile"
LIBRARIES = ("numpy", "onnx", "onnxruntime")
"""What quantizes, and computes the references, whatever the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is compiled, and what its manifest says of where it came from."""

    source: ModelIdentity
    model: Model
    """The ONNX file that the compiler gets: static shapes, quantized if the precision says so."""
    quantization: Quantization | None = None


def compile_model(
    work: Work,
    target: Target,
    options: CompileOptions,
    folder: Path,
    *,
    store: Store | None,
    clock: Clock,
    timeout_s: float,
    observe: Observer = ignore,
) -> Artifact:
    """Compile, or take it from the store.

    Args:
        work: the model and its history.
        target: the chip.
        options: precision and vendor options.
        folder: where the draft is afterwards; must not exist.
        store: None to compile in any case.
        clock: measures the compiler.
        timeout_s: for the vendor's compiler.
        observe: gets the step.

    Raises:
        CompileError: with the vendor's words.
        ToolchainTimeoutError: it did not end in time.
        StorageError: the disk is full.
    """
    key = compile_key(work.model, target, options)
    observe(StepStarted(step=STEP, detail=target.name))
    with store.lock(key) if store is not None else nullcontext():
        found = store.get(key) if store is not None else None
        if found is not None:
            # A copy: the store's own may be pruned as soon as the lock is free. Its source may have been another one.
            with storage_errors("copy to", folder):
                copy_folder(found.root, folder)
            observe(StepFinished(step=STEP, seconds=0.0, detail="from the cache"))
            return Artifact(folder, replace(found.manifest, model=work.source, quantization=work.quantization))
        with storage_errors("make", folder):
            folder.mkdir()
        artifact = _compile(work, target, options, folder, key, clock, timeout_s)
        if store is not None:
            keep(store, key, folder, observe)
    nodes = len(artifact.manifest.placement.nodes)
    observe(StepFinished(step=STEP, seconds=artifact.manifest.compile.seconds, detail=f"{nodes} nodes placed"))
    return artifact


def keep(store: Store, key: str, folder: Path, observe: Observer) -> None:
    """Store an artifact; a cache that has no room must not cost the user what was just built."""
    try:
        store.put(key, folder)
    except StorageError as error:
        observe(Warned(step="cache", message=f"not kept for the next time: {error.message}", advice=error.advice))


def compile_key(model: Model, target: Target, options: CompileOptions) -> str:
    """Everything that decides what the compiler writes: model, target, options, toolchain and driver versions."""
    parts = {
        "npuops": code_identity(),
        "model": model.digest,
        "target": target.name,
        "precision": str(options.precision),
        "vendor": options.vendor,
        "toolchain": toolchain_identity(target),
    }
    return digest_key("compile", parts)


@cache
def code_identity() -> str:
    """The version of npuops and a digest of its source: a change of our own code must not find old builds (10 ms)."""
    root = Path(npuops.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{npuops.__version__} sha256:{digest.hexdigest()}"


def toolchain_identity(target: Target) -> Mapping[str, str]:
    """Versions of the toolchain and of the libraries, and a digest of the target's own file, which may be another's."""
    file = getattr(sys.modules[type(target).__module__], "__file__", None)
    code = Path(file).read_bytes() if file else b""
    libraries = {distribution: _version(distribution) for distribution in LIBRARIES}
    return {**libraries, **target.probe().toolchain, "code": hashlib.sha256(code).hexdigest()}


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""  # onnxruntime-gpu and its like go by other names


def timestamp() -> str:
    """Now, as the manifest writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def digest_key(kind: str, parts: Mapping[str, object]) -> str:
    """`kind-` and the SHA-256 of the parts in canonical JSON."""
    return f"{kind}-{hashlib.sha256(msgspec.json.encode(parts, order='deterministic')).hexdigest()}"


def compile_probe(template: Artifact, model: Model, folder: Path, *, timeout_s: float) -> Artifact:
    """Compile another graph just as `template` was, with no cache; for localisation.

    Raises:
        ToolchainError: the vendor's compiler does not take it.
    """
    manifest = template.manifest
    options = CompileOptions(
        precision=Precision(manifest.precision),
        vendor=manifest.compile.vendor_options,
    )
    compilation = _call_compiler(manifest.target, model, options, folder, timeout_s)
    files = _records(compilation)
    probe = replace(manifest, inputs=model.inputs, outputs=model.outputs, entry=compilation.entry, files=files)
    return Artifact(root=folder, manifest=probe)


def compiled_placement(model: Model, nodes: tuple[Placement, ...]) -> PlacementReport:
    """The compiler's placement with its ratios. Compilers rename and fuse nodes, so MACs are matched by name.

    The ratio by MACs is None when a node on the CPU is not a layer of the model by that name.
    """
    work = [node for node in nodes if node.op not in QDQ_OPS]
    away = [node.name for node in work if node.runs_on is RunsOn.CPU]
    macs = {layer.name: layer.macs for layer in model.layers}
    share: float | None = 0.0
    if away:
        counts = [macs.get(name) for name in away]
        total = model.macs
        known = total and all(count is not None for count in counts)
        share = sum(count or 0 for count in counts) / total if known and total else None
    ops = len(away) / len(work) if work else 0.0
    return PlacementReport(nodes=nodes, fallback_ratio=FallbackRatio(ops=ops, macs=share))


def _compile(
    work: Work,
    target: Target,
    options: CompileOptions,
    folder: Path,
    key: str,
    clock: Clock,
    timeout_s: float,
) -> Artifact:
    started = clock.now_us()
    compilation = _call_compiler(target.name, work.model, options, folder, timeout_s)
    seconds = (clock.now_us() - started) / 1e6
    manifest = Manifest(
        created=timestamp(),
        npuops=npuops.__version__,
        model=work.source,
        target=target.name,
        precision=str(options.precision),
        inputs=work.model.inputs,
        outputs=work.model.outputs,
        entry=compilation.entry,
        files=_records(compilation),
        quantization=work.quantization,
        placement=compiled_placement(work.model, compilation.placement),
        toolchain=dict(target.probe().toolchain),
        compatibility=compilation.compatibility,
        compile=CompileRecord(seconds=seconds, cache_key=key, vendor_options=options.vendor, notes=compilation.notes),
    )
    return write_artifact(folder, manifest)


def _records(compilation: Compilation) -> tuple[FileRecord, ...]:
    return tuple(
        FileRecord(
            name=name,
            role=Role.REFERENCE if name in compilation.reference_files else Role.COMPILED,
            sha256="",
            bytes=0,
        )
        for name in compilation.files
    )


def _call_compiler(target: str, model: Model, options: CompileOptions, folder: Path, timeout_s: float) -> Compilation:
    arguments = {"target": target, "model": model, "options": options, "folder": folder}
    reply = call(_compile_here, arguments, what=f"{target} compile", timeout_s=timeout_s)
    assert isinstance(reply.value, Compilation)  # noqa: S101 - for the type checker
    return reply.value


def _compile_here(target: str, model: Model, options: CompileOptions, folder: Path) -> Compilation:
    """Runs in the child. The compiler works elsewhere, so that stray files never get into an artifact."""
    with tempfile.TemporaryDirectory(prefix="npuops-compile-", dir=folder.parent) as name:
        compilation = open_target(target).compile(model, options, Path(name))
        for file in compilation.files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (Path(name) / file).rename(folder / file)
    return compilation
