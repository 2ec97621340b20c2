"""`ort-cpu`: ONNX Runtime's own CPU engine. The reference that every other target is compared with, and the fallback.

Its "NPU" is this engine: `RunsOn.NPU` means "on the target's engine" here as everywhere.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import onnx

from npuops.artifacts.manifest import Artifact
from npuops.errors import CompileError, IncompatibleArtifactError, ToolchainError
from npuops.models.model import Model
from npuops.models.placement import Placement, RunsOn
from npuops.targets.ort_context import ENTRY, check_compile_call, check_format
from npuops.targets.ort_engine import CPU_PROVIDER, Engine, installed_version, open_session
from npuops.targets.ort_profile import node_costs
from npuops.targets.ort_rules import place_on_ort
from npuops.targets.ort_session import OrtSession, check_artifact_target
from npuops.targets.protocol import (
    Compilation,
    CompileOptions,
    Family,
    OpCost,
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

NAME: Final = "ort-cpu"
LEVELS: Final[Mapping[str, str]] = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
DEFAULT_LEVEL: Final = "extended"
"""The furthest level whose file does not depend on the processor: `all` adds memory layouts that do. A load of an
`extended` file adds them for the processor that it is on."""

OPTIONS: Final = (
    VendorOption(name="graph_optimization_level", meaning="how far ORT rewrites the graph", choices=tuple(LEVELS)),
    VendorOption(name="intra_op_num_threads", meaning="threads within an operator, 0: all cores", low=0, high=1024),
)
_ISA_FLAGS: Final = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "i8mm", "sve")

_TOKEN: Final = re.compile(r"_token_\d+$")


@dataclass(frozen=True, slots=True)
class OrtCpuTarget:
    """This machine's processor."""

    name: str = NAME

    @property
    def traits(self) -> Traits:
        """A clock around it measures this processor."""
        return Traits(
            vendor_options=OPTIONS,
            precisions=(Precision.FP32, Precision.A8W8, Precision.A16W8, Precision.MIXED),
            default_precision=Precision.A8W8,
            run_basis=Basis.MEASURED,
            static_shapes=False,
        )

    @property
    def runner(self) -> Runner:
        """ONNX Runtime."""
        return OrtCpuRunner()

    @property
    def references(self) -> Mapping[str, Runner]:
        """None: this is the reference."""
        return {}

    def probe(self) -> Probe:
        """By package metadata; ONNX Runtime is a dependency of npuops itself."""
        version = installed_version("onnxruntime")
        if version is None:
            install = "pip install --force-reinstall onnxruntime"
            return Probe(target=NAME, available=False, why_not="onnxruntime is not installed", install=install)
        # The kernels that ORT picks depend on the processor, so it is part of the compile cache's key.
        return Probe(
            target=NAME, available=True, toolchain={"onnxruntime": version, "processor": processor()}, can_run="cpu"
        )

    def check(self, model: Model) -> SupportReport:
        """Whatever has a kernel runs; memory is the host's.

        Raises:
            UnsupportedModelError: not ONNX.
        """
        check_format(NAME, model)
        return support_report(NAME, model, place_on_ort(model))

    def compile(self, model: Model, options: CompileOptions, folder: Path) -> Compilation:
        """Let ORT optimize the graph, and keep what came out.

        Raises:
            CompileError: ORT refuses the graph.
            OptionError: an option that does not exist or cannot have that value.
            UnsupportedModelError: not ONNX, not quantized although the precision says so, too large for one file, or
                text goes in and bfloat16 comes out.
        """
        check_compile_call(NAME, model, options, self.traits)
        vendor = checked_options(NAME, options.vendor, OPTIONS, reserved={})
        level = vendor.get("graph_optimization_level", DEFAULT_LEVEL)
        engine = Engine(target=NAME, plugin=None, level=LEVELS[level])

        def saved(session_options: Any) -> None:
            session_options.optimized_model_filepath = str(folder / ENTRY)

        try:
            open_session(engine, model.path, whole=True, nameless=True, adjust=saved)
        except ToolchainError as error:
            raise CompileError(error.message, advice="npuops inspect shows what the model needs") from error
        return Compilation(
            entry=ENTRY,
            files=(ENTRY,),
            placement=_nodes_of(folder / ENTRY),
            compatibility=compatibility(level),
            notes={"graph_optimization_level": level},
        )

    def profile(self, artifact: Artifact, inputs: Tensors) -> Profile:
        """Microseconds of each node of the optimized graph on this processor, medians of a few runs.

        Where loading laid out the memory anew, a node that was fused into another one has no time of its own, and what
        reorders memory is listed besides.

        Raises:
            ToolchainError: ORT cannot load the artifact, or refused the inputs.
        """
        _check_loads(artifact)
        costs = _in_the_files_names(artifact.entry, node_costs(artifact, _engine(artifact), inputs))
        source = f"onnxruntime {installed_version('onnxruntime')} profiler"
        return Profile(basis=Basis.MEASURED, unit="us", source=source, ops=costs)


class OrtCpuRunner:
    """Opens sessions on this processor."""

    def open(self, artifact: Artifact) -> Session:
        """Load an optimized graph.

        Raises:
            IncompatibleArtifactError: optimized by another ORT version, or for another processor.
            ToolchainError: ORT refused.
            UnsupportedModelError: an input is text and an output is bfloat16.
        """
        _check_loads(artifact)
        engine = _engine(artifact)
        return OrtSession(artifact, engine, open_session(engine, artifact.entry, whole=True))


def processor() -> str:
    """The machine and those of its instruction sets that decide ORT's kernels, for example `x86_64+avx2+avx512f`."""
    flags: set[str] = set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        found = next((line for line in lines if line.startswith(("flags", "Features"))), "")
        flags = set(found.partition(":")[2].split())
    return "+".join((platform.machine(), *(flag for flag in _ISA_FLAGS if flag in flags)))


def compatibility(level: str) -> str:
    """What an artifact of this level needs: `ort:<version>:<level>:<machine or processor>`.

    `basic` writes standard ONNX, which every later ORT reads everywhere. `extended` writes operators of this ORT
    version's own domain. `all` adds layouts for this processor.
    """
    where = {"disabled": "any", "basic": "any", "extended": platform.machine(), "all": processor()}[level]
    return f"ort:{installed_version('onnxruntime')}:{level}:{where}"


def _nodes_of(entry: Path) -> tuple[Placement, ...]:
    """The nodes that ORT kept: its own assignment is from before it fuses Q and DQ into integer kernels.

    One without a name has the one that ORT's profile gives it: its operator and its place.
    """
    nodes = onnx.load(entry, load_external_data=False).graph.node
    rule = f"taken by {CPU_PROVIDER}"
    return tuple(
        Placement(name=node.name or f"{node.op_type}_{at}", op=node.op_type, runs_on=RunsOn.NPU, rule=rule)
        for at, node in enumerate(nodes)
    )


def _in_the_files_names(entry: Path, costs: tuple[OpCost, ...]) -> tuple[OpCost, ...]:
    """ORT renames what it lays out anew: after the node (`…_token_7`), or after its output (`…_nchwc`)."""
    nodes = onnx.load(entry, load_external_data=False).graph.node
    names = {node.name for node in nodes}
    producers = {output: node.name for node in nodes for output in node.output}

    def original(name: str) -> str:
        if name in names:
            return name
        plain = _TOKEN.sub("", name)
        return plain if plain in names else producers.get(name.removesuffix("_nchwc"), name)

    return tuple(replace(cost, name=original(cost.name)) for cost in costs)


def _engine(artifact: Artifact) -> Engine:
    vendor = checked_options(NAME, artifact.manifest.compile.vendor_options, OPTIONS, reserved={})
    # The file is optimized already; what is left for a load is the memory layout of this processor, which makes
    # convolutions in float 2.5 times as fast. Parity was judged with it too.
    left = vendor.get("graph_optimization_level", DEFAULT_LEVEL) == DEFAULT_LEVEL
    threads = int(vendor.get("intra_op_num_threads", "0"))
    return Engine(target=NAME, plugin=None, level="ORT_ENABLE_ALL" if left else "ORT_DISABLE_ALL", threads=threads)


def _check_loads(artifact: Artifact) -> None:
    check_artifact_target(artifact, NAME)
    fields = artifact.manifest.compatibility.split(":")
    if len(fields) != 4 or fields[0] != "ort" or fields[2] not in LEVELS:
        raise IncompatibleArtifactError(
            f"compatibility {artifact.manifest.compatibility!r} is not of {NAME}", advice="build the artifact again"
        )
    here = compatibility(fields[2]).split(":")
    if here[3] != fields[3]:
        raise IncompatibleArtifactError(
            f"the graph was optimized for {fields[3]}, this is {here[3]}",
            advice="build it here, or with graph_optimization_level=basic",
        )
    exact = fields[2] not in {"disabled", "basic"}
    if here[1] != fields[1] and (exact or _numbers(here[1]) < _numbers(fields[1])):
        raise IncompatibleArtifactError(
            f"the graph was optimized by onnxruntime {fields[1]}, and {here[1]} is installed",
            advice=f"pip install 'onnxruntime=={fields[1]}', or build the artifact again",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _make(variant: str | None) -> OrtCpuTarget:
    if variant is not None:
        raise unknown_variant(NAME, variant, ())
    return OrtCpuTarget()


FAMILY = Family(name=NAME, summary="this processor, by ONNX Runtime: reference and fallback", variants=(), make=_make)
