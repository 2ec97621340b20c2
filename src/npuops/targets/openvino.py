"""`openvino[:device]`: Intel's CPU (with AMX/VNNI), NPU or GPU by the OpenVINO plugin provider of ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from npuops.artifacts.manifest import Artifact
from npuops.errors import IncompatibleArtifactError, MissingToolchainError
from npuops.models.model import Model
from npuops.models.placement import placement_report
from npuops.targets.ort_context import check_compile_call, check_format, compile_context, in_fresh_process
from npuops.targets.ort_engine import (
    Engine,
    Plugin,
    installed_version,
    open_session,
    package_folder,
    plugin_devices,
    runtime,
)
from npuops.targets.ort_profile import node_costs
from npuops.targets.ort_rules import place_on_openvino
from npuops.targets.ort_session import OrtSession, check_artifact_target
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
from npuops.targets.report import Fit, SupportReport
from npuops.targets.vendor_options import VendorOption, checked_options
from npuops.units import Basis

FAMILY_NAME: Final = "openvino"
INSTALL: Final = "pip install 'npuops[openvino]'"
DISTRIBUTIONS: Final = ("onnxruntime", "onnxruntime-ep-openvino")
INTEL_PCI: Final = "0x8086"
NPU_COMPILER: Final = "libopenvino_intel_npu_compiler_loader.so"
PLUGIN: Final = Plugin(
    ep_name="OpenVINOExecutionProvider",
    package="onnxruntime_ep_openvino",
    library="onnxruntime_providers_openvino_plugin",
    install=INSTALL,
)
_INTEGERS: Final = (Precision.A8W8, Precision.A16W8, Precision.MIXED)
PRECISIONS: Final[Mapping[str, tuple[Precision, ...]]] = {
    "cpu": (Precision.FP32, Precision.BF16, *_INTEGERS),
    "npu": (Precision.FP16, *_INTEGERS),
    "gpu": (Precision.FP32, Precision.FP16, *_INTEGERS),
}
OPTIONS: Final = (
    VendorOption(name="performance_hint", meaning="what to tune for", choices=("LATENCY", "THROUGHPUT")),
    VendorOption(name="num_streams", meaning="inferences at the same time", low=1, high=256),
    VendorOption(name="inference_num_threads", meaning="threads of the CPU device", low=1, high=1024),
)
RESERVED: Final[Mapping[str, str]] = {
    "inference_precision_hint": "choose it with --precision",
    "precision": "choose it with --precision",
    "device_type": "name the device in the target: openvino, openvino:npu, openvino:gpu",
    "cache_dir": "npuops keeps compiled artifacts itself",
    "load_config": "set the single options: " + ", ".join(option.name for option in OPTIONS),
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
        return Traits(precisions=PRECISIONS[self.device], default_precision=Precision.A8W8, run_basis=Basis.MEASURED)

    @property
    def runner(self) -> Runner:
        """The device of this machine."""
        return OpenvinoRunner(self)

    @property
    def references(self) -> Mapping[str, Runner]:
        """None."""
        return {}

    def probe(self) -> Probe:
        """By package metadata, /proc and /sys alone."""
        versions = {name: version for name in DISTRIBUTIONS if (version := installed_version(name)) is not None}
        missing = [name for name in DISTRIBUTIONS if name not in versions]
        if missing:
            why_not = f"{', '.join(missing)} is not installed"
            return Probe(target=self.name, available=False, why_not=why_not, install=INSTALL, toolchain=versions)
        why_not = missing_device(self.device)
        if why_not:
            install = f"{INSTALL}, on a machine with an Intel {self.device.upper()}"
            return Probe(target=self.name, available=False, why_not=why_not, install=install, toolchain=versions)
        return Probe(target=self.name, available=True, toolchain=versions, can_run=self.device)

    def check(self, model: Model) -> SupportReport:
        """By the rules of OpenVINO's ONNX frontend; memory is the host's.

        Raises:
            UnsupportedModelError: not ONNX.
        """
        check_format(self.name, model)
        return SupportReport(
            model=model.path.name,
            target=self.name,
            placement=placement_report(model, place_on_openvino(model)),
            fits=Fit(
                ok=True,
                weights_bytes=model.weight_bytes,
                peak_activation_bytes=model.peak_activation_bytes,
                limit_bytes=None,
            ),
            latency=None,
            energy=None,
        )

    def compile(self, model: Model, options: CompileOptions, folder: Path) -> Compilation:
        """Compile into one EPContext file, as a whole if possible.

        Raises:
            CompileError: with OpenVINO's words.
            OptionError: an option or a precision that does not exist here.
        """
        check_compile_call(self.name, model, options, self.traits)
        vendor = checked_options(self.name, options.vendor, OPTIONS, reserved=RESERVED)
        work = {"device": self.device, "precision": options.precision, "vendor": vendor}
        where = {"model": model.path.resolve(), "folder": folder.resolve()}
        return in_fresh_process(compile_here, {**work, **where}, what=f"{self.name} compile")

    def profile(self, artifact: Artifact, inputs: Tensors) -> Profile:
        """Microseconds of OpenVINO's kernels, and of ORT's CPU nodes between them, medians of a few runs.

        Raises:
            ToolchainError: the artifact cannot be loaded, or the inputs were refused.
        """
        engine = _engine_of(self, artifact)
        costs = node_costs(artifact, engine, inputs, whole=False)
        version = installed_version("onnxruntime-ep-openvino")
        source = f"onnxruntime profiler over onnxruntime-ep-openvino {version}"
        return Profile(basis=Basis.MEASURED, unit="us", source=source, ops=costs)


class OpenvinoRunner:
    """Opens sessions on one device."""

    def __init__(self, target: OpenvinoTarget) -> None:
        self._target = target

    def open(self, artifact: Artifact) -> Session:
        """Load an EPContext file.

        Raises:
            IncompatibleArtifactError: for another target, OpenVINO version or instruction set.
            ToolchainError: OpenVINO refused.
        """
        engine = _engine_of(self._target, artifact)
        return OrtSession(artifact, engine, open_session(engine, artifact.entry, whole=False))


def engine_for(target: OpenvinoTarget, precision: Precision, vendor: Mapping[str, str]) -> Engine:
    """Provider options for one device and precision.

    The precision is always said: OpenVINO's own choice on a CPU with bfloat16 is bfloat16, silently, and 0.02 off.
    """
    hint = {Precision.BF16: "bf16", Precision.FP16: "f16"}.get(precision, "f32" if target.device == "cpu" else "f16")
    config = {"INFERENCE_PRECISION_HINT": hint, **{name.upper(): value for name, value in vendor.items()}}
    device = target.device.upper()
    load_config = json.dumps({device: config}, sort_keys=True)
    return Engine(
        target=target.name,
        plugin=PLUGIN,
        device={"ov_device": device},
        provider_options={"load_config": load_config},
    )


def compile_here(
    *, device: str, precision: Precision, vendor: Mapping[str, str], model: Path, folder: Path
) -> Compilation:
    """The vendor's part of a compilation, in a process that has compiled nothing yet."""
    return compile_context(engine_for(OpenvinoTarget(device), precision, vendor), model, folder)


def missing_device(device: str, *, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> str:
    """Why the plugin offers no such device on this machine, or "".

    The plugin's CPU device appears on Intel processors only (its vendor check; on others it registers and offers
    nothing), although OpenVINO's CPU code would run on any x86-64.
    """
    if device == "cpu":
        vendor = _processor_vendor(proc / "cpuinfo")
        return "" if vendor == "GenuineIntel" else f"its CPU device needs an Intel processor; this is {vendor}"
    if device == "gpu":
        found = _has_intel(sys / "class" / "drm")
        return "" if found else "no Intel GPU is under /sys/class/drm"
    if _has_intel(sys / "class" / "accel"):
        return ""
    offline = "" if _has_npu_compiler() else f"; compiling offline needs {NPU_COMPILER}, which the wheel leaves out"
    return f"no Intel NPU is under /sys/class/accel{offline}"


def _processor_vendor(cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "unknown"  # not Linux: the answer of the probe is then honest about not knowing
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "unknown")


def _has_intel(class_folder: Path) -> bool:
    vendors = [path for path in class_folder.glob("*/device/vendor") if path.is_file()]
    return any(path.read_text(encoding="ascii", errors="replace").strip() == INTEL_PCI for path in vendors)


def _has_npu_compiler() -> bool:
    try:
        return (package_folder(PLUGIN) / NPU_COMPILER).is_file()
    except MissingToolchainError:
        return False


def _engine_of(target: OpenvinoTarget, artifact: Artifact) -> Engine:
    """The engine of an artifact, after the provider itself said that it can load it."""
    check_artifact_target(artifact, target.name)
    manifest = artifact.manifest
    vendor = checked_options(target.name, manifest.compile.vendor_options, OPTIONS, reserved=RESERVED)
    engine = engine_for(target, Precision(manifest.precision), vendor)
    devices = plugin_devices(engine)
    judge = runtime().capi.onnxruntime_pybind11_state
    answer = judge.get_model_compatibility_for_ep_devices(devices, manifest.compatibility)
    if answer == judge.OrtCompiledModelCompatibility.EP_UNSUPPORTED:
        raise IncompatibleArtifactError(
            f"OpenVINO cannot load what was compiled as {manifest.compatibility}",
            advice=f"build it again here, with onnxruntime-ep-openvino {installed_version('onnxruntime-ep-openvino')}",
        )
    return engine


def _make(variant: str | None) -> OpenvinoTarget:
    device = "cpu" if variant is None else variant
    if device not in PRECISIONS:
        raise unknown_variant(FAMILY_NAME, device, tuple(PRECISIONS))
    return OpenvinoTarget(device)


FAMILY = Family(
    name=FAMILY_NAME,
    summary="Intel CPU (AMX/VNNI), NPU or GPU (onnxruntime-ep-openvino)",
    variants=tuple(PRECISIONS),
    make=_make,
)
