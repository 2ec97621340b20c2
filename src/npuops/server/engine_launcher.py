"""Launches versions: from the artifacts and options of a repository to an engine with its workers."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from npuops.artifacts.bundle import is_bundle, naming, unpack
from npuops.artifacts.manifest import Manifest
from npuops.errors import OptionError
from npuops.runtime.buckets import Bucket
from npuops.runtime.engine import Engine
from npuops.runtime.facts import ColdCause
from npuops.runtime.replica import DeviceSpec
from npuops.runtime.replicas import Services
from npuops.runtime.signature import Signature
from npuops.server.device_plan import DevicePlan, plan_devices
from npuops.server.engine_settings import engine_options
from npuops.server.row_proof import Trial, prove_rows
from npuops.server.served_version import ServedVersion
from npuops.server.version_signature import rows_of
from npuops.server.version_spec import FoundArtifact, VersionSpec

DEVICE_VARIABLE: Final = "NPUOPS_DEVICE"
INLINE_TARGETS: Final = frozenset({"ort-cpu"})
"""Whose code may run in the server's own process: it is ours to vouch for, and every install has it."""


class EngineLauncher:
    """Starts engines."""

    def __init__(self, services: Services, weights: Callable[[str], float], scratch: Path) -> None:
        """`weights` gives the share of a tenant, above 0; `scratch`: where bundles are unpacked."""
        self._services, self._weights, self._scratch = services, weights, scratch
        self._answering = 0

    async def launch(self, spec: VersionSpec, cause: ColdCause) -> ServedVersion:
        """Verify, load and warm up on every device.

        Raises:
            NpuopsError: it cannot be served; nothing is left behind.
        """
        with ExitStack() as stack:
            folders = await unpacked(spec.artifacts, self._scratch, stack)
            engine = await self._started(spec, folders, cause)
            self._answering += 1
            stack.callback(self._answers_no_more)
            return ServedVersion(
                spec, engine, labels=_labels(spec.artifacts[0].manifest), on_close=stack.pop_all().close
            )

    def _answers_no_more(self) -> None:
        self._answering -= 1

    async def _started(self, spec: VersionSpec, folders: Mapping[Path, Path], cause: ColdCause) -> Engine:
        devices = [
            device
            for plan in plan_devices(spec.artifacts, spec.options)
            for device in _device_specs(plan, spec.signature, folders)
        ]
        services, trial = self._services, Trial(self._services.observe)
        if spec.options.padding.rows:
            services = replace(services, observe=trial)
        options = engine_options(spec.options, spec.signature)
        engine = Engine(spec.model, spec.version, spec.signature, devices, options, services, self._weights)
        try:
            # Whoever waits for a cold model waits for the processor, too; a load that nobody waits for can yield.
            await engine.start(cause, background=self._answering > 0 and cause is ColdCause.LOAD)
            if spec.options.padding.rows:
                shapes = [tuple(max(size, 1) for size in shape or ()) for shape in devices[0].buckets[0].shapes]
                await prove_rows(spec.signature, shapes, engine.submit, services.clock.now_us)
                trial.over = True
        except BaseException:
            await engine.close()
            raise
        return engine


async def unpacked(artifacts: Sequence[FoundArtifact], scratch: Path, stack: ExitStack) -> Mapping[Path, Path]:
    """Where each artifact lies as a folder. The worker verifies every byte before it loads.

    Args:
        artifacts: folders stay where they are; bundles are unpacked.
        scratch: where to.
        stack: removes again what was unpacked.

    Raises:
        ArtifactError: a bundle is damaged.
        StorageError: it cannot be unpacked.
    """
    folders: dict[Path, Path] = {}
    for item in artifacts:
        folders[item.path] = item.path
        if is_bundle(item.path):
            private = stack.enter_context(tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True))
            folders[item.path] = folder = Path(private) / "artifact"
            await _in_thread(partial(_unpack, item.path, folder))
    return folders


def _unpack(bundle: Path, folder: Path) -> None:
    with naming(bundle, folder):
        unpack(bundle, folder)


async def _in_thread(call: Callable[[], None]) -> None:
    """Even one that is cancelled meanwhile ends before its folder is removed."""
    work = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _device_specs(plan: DevicePlan, signature: Signature, folders: Mapping[Path, Path]) -> list[DeviceSpec]:
    buckets = tuple(_bucket(index, item, signature) for index, item in enumerate(plan.artifacts))
    return [
        DeviceSpec(
            name=plan.name if plan.instances == 1 else f"{plan.name}[{instance}]",
            target=plan.target,
            artifacts=tuple(folders[item.path] for item in plan.artifacts),
            digests=tuple(item.manifest.digest for item in plan.artifacts),
            buckets=buckets,
            fallback=plan.fallback,
            inline=plan.target in INLINE_TARGETS,
            environment={DEVICE_VARIABLE: plan.device} if plan.device else {},
        )
        for instance in range(plan.instances)
    ]


def _bucket(index: int, item: FoundArtifact, signature: Signature) -> Bucket:
    shapes = []
    for tensor in item.manifest.inputs:
        shape = None if tensor.shape is None else tuple(dim if isinstance(dim, int) else -1 for dim in tensor.shape)
        shapes.append(shape[1:] if shape is not None and signature.batched else shape)
    if signature.batched and rows_of(item.manifest) == 0:
        raise OptionError(
            f"{item.name!r} has no axis for the rows of a batch, other artifacts of this version have one",
            advice="put it into a model of its own",
        )
    return Bucket(index, rows_of(item.manifest) if signature.batched else None, tuple(shapes))


def _labels(manifest: Manifest) -> dict[str, Sequence[str]]:
    """The manifest's class names are those of the first output's last axis."""
    return {manifest.outputs[0].name: manifest.labels} if manifest.labels and manifest.outputs else {}
