"""Launches versions: from the artifacts and options of a repository to an engine with its workers."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from npuops.artifacts.bundle import is_bundle
from npuops.artifacts.folder import open_artifact
from npuops.artifacts.manifest import Manifest
from npuops.build.fallback import read_fallback_policy
from npuops.errors import OptionError
from npuops.runtime.admission import Limits
from npuops.runtime.buckets import AxisPadding, Bucket, Crop
from npuops.runtime.engine import Engine
from npuops.runtime.engine_options import EngineOptions
from npuops.runtime.facts import ColdCause
from npuops.runtime.replica import DeviceSpec
from npuops.runtime.replicas import Services
from npuops.runtime.signature import Signature
from npuops.server.device_plan import DevicePlan, plan_devices
from npuops.server.model_options import ModelOptions, PaddingOptions
from npuops.server.served_version import ServedVersion
from npuops.server.version_signature import rows_of
from npuops.server.version_spec import FoundArtifact, VersionSpec

DEVICE_VARIABLE: Final = "NPUOPS_DEVICE"
INLINE_TARGETS: Final = frozenset({"ort-cpu"})
"""Whose code may run in the server's own process: it is ours to vouch for, and every install has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """Of the server, for every version.

    Attributes:
        max_request_bytes: of the inputs of one request.
    """

    max_request_bytes: int = 64 << 20


class EngineLauncher:
    """Starts engines."""

    def __init__(
        self,
        services: Services,
        options: LaunchOptions,
        weights: Callable[[str], float],
        scratch: Path | None = None,
    ) -> None:
        """`scratch`: where bundles are unpacked; None makes a folder that goes with this object."""
        self._services, self._options, self._weights = services, options, weights
        self._own = None if scratch is not None else tempfile.TemporaryDirectory(prefix="npuops-serve-")
        self._scratch = scratch or Path(self._own.name if self._own is not None else "")

    async def launch(self, spec: VersionSpec, cause: ColdCause) -> ServedVersion:
        """Verify, load and warm up on every device.

        Raises:
            NpuopsError: it cannot be served; nothing is left behind.
        """
        folders = await asyncio.to_thread(self._unpacked, spec)
        devices = [
            device
            for plan in plan_devices(spec.artifacts, spec.options)
            for device in _device_specs(plan, spec.signature, folders)
        ]
        engine = Engine(
            spec.model,
            spec.version,
            spec.signature,
            devices,
            engine_options(spec.options, spec.signature, self._options),
            self._services,
            self._weights,
        )
        try:
            await engine.start(cause)
        except BaseException:
            await engine.close()
            raise
        return ServedVersion(
            spec, engine, max_request_bytes=self._options.max_request_bytes, labels=_labels(spec.artifacts[0].manifest)
        )

    def close(self) -> None:
        """Remove what was unpacked."""
        if self._own is not None:
            self._own.cleanup()

    def _unpacked(self, spec: VersionSpec) -> Mapping[Path, Path]:
        """Where each artifact lies as a folder. The worker verifies every byte before it loads."""
        folders: dict[Path, Path] = {}
        for item in spec.artifacts:
            folders[item.path] = item.path
            if is_bundle(item.path):
                folders[item.path] = open_artifact(item.path).root
        return folders


def engine_options(options: ModelOptions, signature: Signature, server: LaunchOptions) -> EngineOptions:
    """A model's options in the engine's words.

    Raises:
        OptionError: padding names a tensor that the model does not have.
    """
    return EngineOptions(
        batching=options.batching.enabled == "auto",
        budget_us=options.batching.budget_ms * 1000,
        limits=Limits(max_queue_requests=options.queue.max_requests, max_queue_bytes=options.queue.max_bytes),
        max_request_bytes=server.max_request_bytes,
        inline=options.inline,
        fallback=read_fallback_policy(options.fallback),
        shard=options.shard,
        padding=_padding(options.padding, signature),
    )


def _padding(options: PaddingOptions, signature: Signature) -> AxisPadding:
    inputs = [port.name for port in signature.inputs]
    outputs = [port.name for port in signature.outputs]
    for name in options.values:
        _must_be(name, inputs, "padding.values")
    crops = tuple(
        Crop(
            output=_must_be(crop.output, outputs, "padding.crop.output"),
            axis=crop.axis,
            input=_must_be(crop.input, inputs, "padding.crop.input"),
            input_axis=crop.input_axis,
        )
        for crop in options.crop
    )
    return AxisPadding(values=tuple(options.values.get(name) for name in inputs), crops=crops)


def _must_be(name: str, known: Sequence[str], where: str) -> int:
    if name not in known:
        raise OptionError(f"{where} names {name!r}", advice=f"the model has {', '.join(known)}")
    return list(known).index(name)


def _device_specs(plan: DevicePlan, signature: Signature, folders: Mapping[Path, Path]) -> list[DeviceSpec]:
    buckets = tuple(_bucket(index, item, signature) for index, item in enumerate(plan.artifacts))
    return [
        DeviceSpec(
            name=plan.name if plan.instances == 1 else f"{plan.name}[{instance}]",
            target=plan.target,
            artifacts=tuple(folders[item.path] for item in plan.artifacts),
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
    return Bucket(index, rows_of(item.manifest) if signature.batched else None, tuple(shapes))


def _labels(manifest: Manifest) -> dict[str, Sequence[str]]:
    """The manifest's class names are those of the first output's last axis."""
    return {manifest.outputs[0].name: manifest.labels} if manifest.labels and manifest.outputs else {}
