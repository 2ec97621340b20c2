"""`qnn-htp:<soc>`: Qualcomm's Hexagon Tensor Processor, compiled for a named chip and run on Qualcomm's emulator."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from npuops.artifacts.compatibility import compatible
from npuops.artifacts.evidence import Verdict
from npuops.artifacts.manifest import Artifact
from npuops.errors import IncompatibleArtifactError, MissingToolchainError, OptionError, UnknownTargetError
from npuops.models.model import Model
from npuops.targets.ort_context import check_compile_call, check_format, compile_context, in_fresh_process
from npuops.targets.ort_engine import Engine, Plugin, installed_version, open_session, package_folder
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
from npuops.targets.qnn_profile import UNIT, read_profile
from npuops.targets.qnn_rules import advice_for, place_on_htp
from npuops.targets.qnn_socs import SOCS, Soc, chips_with
from npuops.targets.registry import unknown_variant
from npuops.targets.report import SupportReport, support_report
from npuops.targets.vendor_options import VendorOption, checked_options
from npuops.units import Basis

FAMILY_NAME: Final = "qnn-htp"
INSTALL: Final = "pip install 'npuops[qnn]'"
DISTRIBUTIONS: Final = ("onnxruntime", "onnxruntime-qnn")
PLUGIN: Final = Plugin(
    ep_name="QNNExecutionProvider",
    package="onnxruntime_qnn",
    library="onnxruntime_providers_qnn",
    install=INSTALL,
)
LICENCE_NOTE: Final = (
    "onnxruntime-qnn carries Qualcomm's compiler and emulator under the Qualcomm AI Stack License: to develop, "
    "demonstrate and benchmark your own applications; no redistribution on its own. "
    "Read Qualcomm_LICENSE.pdf in the package."
)

_MODES: Final = (
    *("default", "burst", "balanced", "high_performance", "high_power_saver", "low_balanced", "low_power_saver"),
    *("power_saver", "extreme_power_saver", "sustained_high_performance"),
)
_SWITCH: Final = ("0", "1")
_FINALIZE: Final = "htp_graph_finalization_optimization_mode"
_BY_NAME: Final = "name the chip in the target, for example qnn-htp:sm8650 (or qnn-htp:v75)"
_BY_PRECISION: Final = "choose it with --precision"
_OURS: Final = "npuops sets it"

OPTIONS: Final = (
    VendorOption(name="htp_performance_mode", meaning="clock and power mode of the device", choices=_MODES),
    VendorOption(name=_FINALIZE, meaning="how hard the compiler tries", low=0, high=3),
    VendorOption(name="vtcm_mb", meaning="VTCM that the graph may use, in MiB", low=1, high=16),
    VendorOption(name="qnn_context_priority", meaning="queue", choices=("low", "normal", "normal_high", "high")),
    VendorOption(name="rpc_control_latency", meaning="in microseconds", low=0, high=1_000_000),
    VendorOption(name="enable_htp_spill_fill_buffer", meaning="share spill memory", choices=_SWITCH),
)
RESERVED: Final[Mapping[str, str]] = {
    "soc_model": _BY_NAME,
    "htp_arch": _BY_NAME,
    "htp_bf16_enable": _BY_PRECISION,
    "enable_htp_fp16_precision": _BY_PRECISION,
    "backend_path": _OURS,
    "backend_type": _OURS,
    "offload_graph_io_quantization": _OURS,
    "profiling_level": "use npuops profile",
    "profiling_file_path": "use npuops profile",
}


@dataclass(frozen=True, slots=True)
class QnnHtpTarget:
    """One Snapdragon chip, or one Hexagon architecture."""

    soc: Soc

    @property
    def name(self) -> str:
        """For example `qnn-htp:sm8650`."""
        return f"{FAMILY_NAME}:{self.soc.name}"

    @property
    def traits(self) -> Traits:
        """INT8 first; what a clock shows here is the emulator's speed."""
        return Traits(
            precisions=self.soc.precisions,
            default_precision=Precision.A8W8,
            run_basis=Basis.EMULATED,
            layernorm_gamma_uint8=True,
            slow_run=True,
            vendor_options=OPTIONS,
            reserved_options=RESERVED,
            licence_note=LICENCE_NOTE,
        )

    @property
    def runner(self) -> Runner:
        """Qualcomm's x86 emulator of the HTP."""
        return QnnRunner(self)

    @property
    def references(self) -> Mapping[str, Runner]:
        """None: the emulator is Qualcomm's own arithmetic already."""
        return {}

    def probe(self) -> Probe:
        """By package metadata and files alone."""
        versions = {name: version for name in DISTRIBUTIONS if (version := installed_version(name)) is not None}
        missing = [name for name in DISTRIBUTIONS if name not in versions]
        why_not = f"{', '.join(missing)} is not installed" if missing else _missing_library()
        if why_not:
            return Probe(target=self.name, available=False, why_not=why_not, install=INSTALL, toolchain=versions)
        return Probe(target=self.name, available=True, toolchain=versions, can_run="emulator")

    def check(self, model: Model) -> SupportReport:
        """By the operator rules; weights and activations live in the host's DRAM, so there is no fixed limit.

        Raises:
            UnsupportedModelError: not ONNX.
        """
        check_format(self.name, model)
        placement = place_on_htp(model)
        return support_report(self.name, model, placement, advice=advice_for(model, placement))

    def compile(self, model: Model, options: CompileOptions, folder: Path) -> Compilation:
        """Compile into one EPContext file, as a whole if possible.

        Raises:
            CompileError: with the vendor's words.
            OptionError: a vendor option or a precision that this chip does not have.
        """
        self._check_precision(options.precision)
        check_compile_call(self.name, model, options, self.traits)
        vendor = checked_options(self.name, options.vendor, OPTIONS, reserved=RESERVED)
        work = {"variant": self.soc.name, "precision": options.precision, "vendor": vendor}
        where = {"model": model.path.resolve(), "folder": folder.resolve()}
        return in_fresh_process(compile_here, {**work, **where}, what=f"{self.name} compile")

    def profile(self, artifact: Artifact, inputs: Tensors) -> Profile:
        """Ticks of each operator on the emulator; CPU islands are not in them.

        Raises:
            ToolchainError: the emulator refused, or wrote no profile.
        """
        version = installed_version("onnxruntime-qnn")
        with tempfile.TemporaryDirectory(prefix="npuops-qnn-profile-") as name:
            report = Path(name) / "profile.csv"
            more = {"profiling_level": "detailed", "profiling_file_path": str(report)}
            session = QnnRunner(self).open_with(artifact, more)
            session.run(inputs)
            session.close()
            ops = {node.name: node.op for node in artifact.manifest.placement.nodes}
            costs = read_profile(report, ops)
        return Profile(
            basis=Basis.EMULATED,
            unit=UNIT,
            source=f"onnxruntime-qnn {version} HTP emulator, NPU part only: shares on this host, not Hexagon cycles",
            ops=costs,
        )

    def _check_precision(self, precision: Precision) -> None:
        if precision in self.soc.precisions or precision is Precision.FP32:
            return
        able = ", ".join(f"{FAMILY_NAME}:{chip}" for chip in chips_with(precision))
        raise OptionError(f"{self.name} cannot do {precision}", advice=f"{precision} works on {able}")


class QnnRunner:
    """Opens sessions on the emulator."""

    def __init__(self, target: QnnHtpTarget) -> None:
        self._target = target

    def open(self, artifact: Artifact) -> Session:
        """Load an EPContext file for this chip.

        Raises:
            IncompatibleArtifactError: for another chip, or by a newer QAIRT than the one that is installed.
            ToolchainError: the emulator refused.
        """
        return self.open_with(artifact, {})

    def open_with(self, artifact: Artifact, more: Mapping[str, str]) -> OrtSession:
        """Like `open`, with further provider options."""
        target = self._target
        check_artifact_target(artifact, target.name)
        _check_toolchain(artifact, target.soc)
        manifest = artifact.manifest
        vendor = checked_options(target.name, manifest.compile.vendor_options, OPTIONS, reserved=RESERVED)
        engine = engine_for(target.soc, Precision(manifest.precision), {**vendor, **more})
        # An EPContext node cannot run anywhere else, so nothing can fall back here; a context compiled in parts
        # has the nodes between them on the CPU, as its placement says.
        return OrtSession(artifact, engine, open_session(engine, artifact.entry, whole=False))


def engine_for(soc: Soc, precision: Precision, vendor: Mapping[str, str]) -> Engine:
    """Provider options for one chip and precision."""
    chip = {"htp_arch": str(soc.arch)} if soc.soc_model is None else {"soc_model": str(soc.soc_model)}
    bf16 = {"htp_bf16_enable": "1"} if precision is Precision.BF16 else {}
    options = {
        "backend_path": str(package_folder(PLUGIN) / "libQnnHtp.so"),
        "offload_graph_io_quantization": "0",  # otherwise the graph's own Q and DQ always go to the CPU
        **chip,
        **bf16,
        **vendor,
    }
    return Engine(target=f"{FAMILY_NAME}:{soc.name}", plugin=PLUGIN, provider_options=options)


def compile_here(
    *, variant: str, precision: Precision, vendor: Mapping[str, str], model: Path, folder: Path
) -> Compilation:
    """The vendor's part of a compilation, in a process that has compiled nothing yet."""
    engine = engine_for(SOCS[variant], precision, vendor)
    with tempfile.TemporaryDirectory(prefix="npuops-qnn-trace-") as name:
        trace = {"enable_framework_op_trace": "1", "framework_op_trace_dir": name}
        return compile_context(engine, model, folder, tracing=trace, explain=lambda: _reasons(Path(name)))


def _reasons(folder: Path) -> dict[str, str]:
    """Node name → why QNN does not take it, from the trace that it wrote (none for a graph that it takes whole)."""
    reasons: dict[str, str] = {}
    for file in sorted(folder.glob("*.json")):
        trace = json.loads(file.read_text(encoding="utf-8"))
        reasons.update({node["node_name"]: node["reason"] for node in trace.get("unsupported_nodes", [])})
    return reasons


def _missing_library() -> str:
    try:
        folder = package_folder(PLUGIN)
    except MissingToolchainError as error:
        return error.message
    absent = [name for name in (f"lib{PLUGIN.library}.so", "libQnnHtp.so") if not (folder / name).is_file()]
    return f"{', '.join(absent)} is missing in {folder}" if absent else ""


def _check_toolchain(artifact: Artifact, soc: Soc) -> None:
    """The context must be of this very chip, and of versions that `artifacts.compatibility` lets load here."""
    fields = artifact.manifest.compatibility.split(":")
    # v2:6:<QAIRT>:<API>:<architecture or 0>:<SoC id or 0>:…, as the provider writes it.
    wanted = ["0", str(soc.soc_model)] if soc.soc_model is not None else [str(soc.arch), "0"]
    if fields[4:6] != wanted:
        raise IncompatibleArtifactError(
            f"compatibility {artifact.manifest.compatibility!r} is not of {soc.name} ({':'.join(wanted)})",
            advice="build the artifact again",
        )
    answer = compatible(artifact.manifest, QnnHtpTarget(soc).probe().toolchain)
    if answer.verdict is Verdict.FAIL:
        raise IncompatibleArtifactError("; ".join(answer.reasons), advice="; ".join(answer.advice))


def _make(variant: str | None) -> QnnHtpTarget:
    if variant is None:
        raise UnknownTargetError(
            f"{FAMILY_NAME} needs a chip: a binary runs on the one that it was compiled for",
            advice=f"for example {FAMILY_NAME}:sm8650; npuops targets lists all",
        )
    if variant not in SOCS:
        raise unknown_variant(FAMILY_NAME, variant, tuple(SOCS))
    return QnnHtpTarget(SOCS[variant])


FAMILY = Family(
    name=FAMILY_NAME,
    summary="Qualcomm Hexagon Tensor Processor (onnxruntime-qnn; runs on Qualcomm's emulator)",
    variants=tuple(SOCS),
    make=_make,
)
