"""`openvino[:device]`: OpenVINO on any x86-64 or arm64 CPU (with VNNI and AMX where it has them), Intel NPU or GPU."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from npuops.artifacts.manifest import Artifact
from npuops.errors import UnsupportedModelError
from npuops.models.batch_axis import with_rows
from npuops.models.model import Model
from npuops.targets.child import call
from npuops.targets.openvino_engine import (
    INSTALL,
    Engine,
    OpenvinoSession,
    compile_graph,
    is_pristine,
    load,
    median_costs,
)
from npuops.targets.openvino_rules import place_on_openvino
from npuops.targets.ort_context import NESTED_LIMIT_S, check_compile_call, check_format
from npuops.targets.ort_cpu import processor
from npuops.targets.ort_engine import installed_version
from npuops.targets.ort_session import check_artifact_target
from npuops.targets.protocol import (
    Compilation,
    CompileOptions,
    Family,
    Precision,
    Probe,
    Profile,
    Runner,
    Session,
    Tensors,
    Traits,
)
from npuops.targets.registry import unknown_variant
from npuops.targets.report import SupportReport, support_report
from npuops.targets.vendor_options import VendorOption, checked_options
from npuops.units import Basis

FAMILY_NAME: Final = "openvino"
DISTRIBUTION: Final = "openvino"
MACHINES: Final = frozenset({"x86_64", "aarch64", "arm64"})
"""What the CPU plugin has code for."""

INTEL_PCI: Final = "0x8086"
_INTEGERS: Final = (Precision.A8W8, Precision.A16W8, Precision.MIXED)
PRECISIONS: Final[Mapping[str, tuple[Precision, ...]]] = {
    "cpu": (Precision.FP32, Precision.BF16, *_INTEGERS),
    "npu": (Precision.FP16, *_INTEGERS),
    "gpu": (Precision.FP32, Precision.FP16, *_INTEGERS),
}
_HINT: Final = VendorOption(
    name="performance_hint", meaning="what to tune for", choices=("LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT")
)
_STREAMS: Final = VendorOption(name="num_streams", meaning="inferences at the same time", low=1, high=256)
_THREADS: Final = VendorOption(name="inference_num_threads", meaning="threads, 0: all cores", low=0, high=1024)
OPTIONS: Final[Mapping[str, tuple[VendorOption, ...]]] = {
    "cpu": (_HINT, _STREAMS, _THREADS),
    "npu": (_HINT,),
    "gpu": (_HINT, _STREAMS),
}
RESERVED: Final[Mapping[str, str]] = {
    "inference_precision_hint": "choose it with --precision",
    "execution_mode_hint": "choose the precision with --precision",
    "dynamic_quantization_group_size": "npuops sets it: activations are quantized in the graph or not at all",
    "device_type": "name the device in the target: openvino, openvino:npu, openvino:gpu",
    "cache_dir": "npuops keeps compiled artifacts itself",
    "perf_count": "use npuops profile",
}


@dataclass(frozen=True, slots=True)
class OpenvinoTarget:
    """One kind of device."""

    device: str

    @property
    def name(self) -> str:
        """`openvino` for the CPU, else `openvino:npu` or `openvino:gpu`."""
        return FAMILY_NAME if self.device == "cpu" else f"{FAMILY_NAME}:{self.device}"

    @property
    def traits(self) -> Traits:
        """A clock around it measures the device that the name says."""
        return Traits(
            precisions=PRECISIONS[self.device],
            default_precision=Precision.A8W8,
            run_basis=Basis.MEASURED,
            static_shapes=self.device != "cpu",
            vendor_options=OPTIONS[self.device],
            reserved_options=RESERVED,
        )

    @property
    def runner(self) -> Runner:
        """The device of this machine."""
        return OpenvinoRunner(self)

    @property
    def references(self) -> Mapping[str, Runner]:
        """None."""
        return {}

    def probe(self) -> Probe:
        """By package metadata, /sys and /dev alone."""
        version = installed_version(DISTRIBUTION)
        if version is None:
            why_not = f"{DISTRIBUTION} is not installed"
            return Probe(target=self.name, available=False, why_not=why_not, install=INSTALL)
        # The blob depends on the processor's instruction sets, so it is part of the compile cache's key.
        versions = {DISTRIBUTION: version, "processor": processor()}
        why_not = missing_device(self.device)
        if why_not:
            install = f"{INSTALL}, on a machine with an Intel {self.device.upper()} and its driver"
            return Probe(target=self.name, available=False, why_not=why_not, install=install, toolchain=versions)
        return Probe(target=self.name, available=True, toolchain=versions, can_run=self.device)

    def check(self, model: Model) -> SupportReport:
        """By what OpenVINO's ONNX reader translates; memory is the host's.

        Raises:
            UnsupportedModelError: not ONNX.
        """
        check_format(self.name, model)
        return support_report(self.name, model, place_on_openvino(model, any_batch=self.device == "cpu"))

    def compile(self, model: Model, options: CompileOptions, folder: Path) -> Compilation:
        """Compile the whole graph into one blob.

        OpenVINO numbers nodes over the life of a process, and the numbers end up in the blob: only a fresh process
        gives the same bytes for the same model.

        Raises:
            CompileError: with OpenVINO's words.
            OptionError: an option or a precision that does not exist here.
            UnsupportedModelError: a size that is not fixed, besides the batch of a CPU's model.
        """
        check_compile_call(self.name, model, options, self.traits)
        _refuse_open_axes(self.name, model)
        vendor = checked_options(self.name, options.vendor, OPTIONS[self.device], reserved=RESERVED)
        engine = engine_for(self, options.precision, vendor)
        if is_pristine():
            return compile_graph(engine, model, folder)
        arguments = {"engine": engine, "model": model, "folder": folder.resolve()}
        compilation: Compilation = call(
            compile_graph, arguments, what=f"{self.name} compile", timeout_s=NESTED_LIMIT_S
        ).value
        return compilation

    def profile(self, artifact: Artifact, inputs: Tensors) -> Profile:
        """Microseconds of each of OpenVINO's kernels, medians of a few runs; the kernel's name is beside the operator.

        Raises:
            ToolchainError: the artifact cannot be loaded, or the inputs were refused.
        """
        engine = _engine_of(self, artifact)
        counting = replace(engine, config={**engine.config, "PERF_COUNT": "YES"})
        session = OpenvinoSession(artifact, counting, load(counting, artifact))
        try:
            costs = median_costs(session, inputs)
        finally:
            session.close()
        source = f"openvino {installed_version(DISTRIBUTION)} performance counters"
        return Profile(basis=Basis.MEASURED, unit="us", source=source, ops=costs)


class OpenvinoRunner:
    """Opens sessions on one device."""

    def __init__(self, target: OpenvinoTarget) -> None:
        self._target = target

    def open(self, artifact: Artifact) -> Session:
        """Load a blob.

        Raises:
            IncompatibleArtifactError: for another target, OpenVINO version or instruction set.
            ToolchainError: OpenVINO refused.
        """
        engine = _engine_of(self._target, artifact)
        return OpenvinoSession(artifact, engine, load(engine, artifact))


def engine_for(target: OpenvinoTarget, precision: Precision, vendor: Mapping[str, str]) -> Engine:
    """The settings for one device and precision.

    The precision is always said: OpenVINO's own choice on a CPU with bfloat16 is bfloat16, silently, and 0.02 off.
    So is what OpenVINO does to float activations before 8-bit weights: it would quantize them in groups, unasked.
    """
    hint = {Precision.BF16: "bf16", Precision.FP16: "f16"}.get(precision, "f32" if target.device != "npu" else "f16")
    exact = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"} if target.device == "cpu" else {}
    config = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        **exact,
        **{name.upper(): value for name, value in vendor.items()},
    }
    return Engine(target=target.name, device=target.device.upper(), config=config)


def _refuse_open_axes(target: str, model: Model) -> None:
    """Open sizes besides the batch: nothing here proves what the plugin makes of them."""
    loose = ", ".join(tensor.name for tensor in with_rows(model.inputs) if not tensor.is_static)
    if loose:
        raise UnsupportedModelError(
            f"{target} needs fixed shapes behind the batch axis; dynamic: {loose}",
            advice="fix them with --shape NAME=1x3x224x224",
        )


def missing_device(device: str, *, sys: Path = Path("/sys"), dev: Path = Path("/dev"), machine: str = "") -> str:
    """Why OpenVINO has no such device on this machine, or ""; by the kernel's files alone."""
    if device == "cpu":
        here = machine or platform.machine()
        return "" if here in MACHINES else f"OpenVINO's CPU plugin has no code for {here}"
    if device == "gpu":
        if not _intel_nodes(sys / "class" / "drm", "renderD*"):
            return "no Intel GPU is under /sys/class/drm"
        return _closed(dev / "dri", _intel_nodes(sys / "class" / "drm", "renderD*"))
    found = _intel_nodes(sys / "class" / "accel", "accel*")
    if not found:
        return (
            "no Intel NPU is under /sys/class/accel (driver intel_vpu), and the wheel lacks the compiler "
            "that would work without one"
        )
    return _closed(dev / "accel", found)


def _intel_nodes(class_folder: Path, pattern: str) -> list[str]:
    return [
        path.name
        for path in sorted(class_folder.glob(pattern))
        if (path / "device" / "vendor").is_file()
        and (path / "device" / "vendor").read_text(encoding="ascii", errors="replace").strip() == INTEL_PCI
    ]


def _closed(folder: Path, names: list[str]) -> str:
    if any(os.access(folder / name, os.R_OK | os.W_OK) for name in names):
        return ""
    return f"{folder / names[0]} may not be opened by this user (it usually belongs to the group render)"


def _engine_of(target: OpenvinoTarget, artifact: Artifact) -> Engine:
    check_artifact_target(artifact, target.name)
    manifest = artifact.manifest
    vendor = checked_options(target.name, manifest.compile.vendor_options, OPTIONS[target.device], reserved=RESERVED)
    return engine_for(target, Precision(manifest.precision), vendor)


def _make(variant: str | None) -> OpenvinoTarget:
    device = "cpu" if variant is None else variant
    if device not in PRECISIONS:
        raise unknown_variant(FAMILY_NAME, device, tuple(PRECISIONS))
    return OpenvinoTarget(device)


FAMILY = Family(
    name=FAMILY_NAME,
    summary="any x86-64 or arm64 CPU (INT8 kernels, BF16), Intel NPU or GPU (openvino)",
    variants=tuple(PRECISIONS),
    make=_make,
)
