"""`vnpu:PROFILE`: a chip that is not there; it is used only when it is asked for by name.

Placement by the chip's published rules, numbers by ONNX Runtime on this host, time, heat, power and memory by the model
of its profile.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from npuops import __version__
from npuops.artifacts.manifest import Artifact
from npuops.errors import CompileError, OptionError, StorageError, UnknownTargetError
from npuops.models.model import Model
from npuops.models.open import open_model
from npuops.models.placement import Placement
from npuops.targets.ort_session import check_artifact_target
from npuops.targets.protocol import (
    Compilation,
    CompileOptions,
    Family,
    OpCost,
    Precision,
    Probe,
    Profile,
    Runner,
    Tensors,
    Traits,
)
from npuops.targets.report import Fit, SupportReport, support_report
from npuops.targets.vendor_options import checked_options
from npuops.units import Basis
from npuops.vnpu.memory_plan import fit_of, plan_memory
from npuops.vnpu.predict import energy_of, estimate_model, uncounted, unpriced
from npuops.vnpu.pricing import program_of
from npuops.vnpu.profile import Profile as Chip
from npuops.vnpu.profile import load_profile, machine_spec, profile_names
from npuops.vnpu.program_file import ENTRY, MODEL, ProgramFile, decode_program, encode_program
from npuops.vnpu.rules import rules_of
from npuops.vnpu.session import VnpuRunner
from npuops.vnpu.work import Workload, workload_of

FAMILY_NAME: Final = "vnpu"
DEVICE_VARIABLE: Final = "NPUOPS_DEVICE"
"""Name of the device that is up and that sessions of this process open on."""
FORMAT_OF: Final[Mapping[Precision, str]] = {Precision.A8W8: "int8", Precision.A16W8: "w8a16"}
UNBUILT: Final[Mapping[Precision, str]] = {Precision.FP16: "fp16", Precision.FP32: "fp32"}


@dataclass(frozen=True, slots=True)
class VnpuTarget:
    """One virtual chip.

    Attributes:
        chip: its profile.
        file: absolute path of the profile, where it is the user's own; empty for a bundled one.
    """

    chip: Chip
    file: str = ""

    @property
    def name(self) -> str:
        """`vnpu:PROFILE`, by which every process opens the same chip."""
        return f"{FAMILY_NAME}:{self.file or self.chip.name}"

    @property
    def traits(self) -> Traits:
        """Integers only: half precision would need its own numerics, which the host runner does not have."""
        built, unbuilt = (
            tuple(precision for precision, name in table.items() if name in self.chip.formats)
            for table in (FORMAT_OF, UNBUILT)
        )
        return Traits(
            precisions=built,
            unbuilt_precisions=unbuilt,
            default_precision=Precision.A8W8,
            run_basis=Basis.EMULATED,
        )

    @property
    def runner(self) -> Runner:
        """The device that `$NPUOPS_DEVICE` names; without it each session has one of its own, in fast pacing."""
        spec = machine_spec(self.chip)
        return VnpuRunner(spec_of=lambda _profile: spec, device=os.environ.get(DEVICE_VARIABLE) or None)

    @property
    def references(self) -> Mapping[str, Runner]:
        """None: the numbers are the host runner's."""
        return {}

    def probe(self) -> Probe:
        """Always here."""
        toolchain = {"npuops": __version__, "onnxruntime": version("onnxruntime"), "profile": _identity(self.chip)}
        return Probe(target=self.name, available=True, toolchain=toolchain, can_run="virtual device")

    def check(self, model: Model) -> SupportReport:
        """Place by the chip's rules; price as int8, whatever the file's own format."""
        placed, workload = self._place(model, "int8"), workload_of(model)
        fits = self._fit(model, workload, placed, "int8")
        report = replace(support_report(self.name, model, placed), fits=fits)
        if unpriced(model, placed):
            return report
        found = estimate_model(model, workload, self.chip, placed, "int8")
        latency, left_out = found.latency, uncounted(model)
        if left_out:
            latency = replace(latency, source=f"{latency.source}; layers of unknown size left out: {len(left_out)}")
        return replace(report, latency=latency, energy=energy_of(found, self.chip))

    def compile(self, model: Model, options: CompileOptions, folder: Path) -> Compilation:
        """Price every layer, and keep the graph for its numbers.

        Raises:
            CompileError: a precision that the chip does not have, or a model that does not fit its memory.
            OptionError: this compiler has no options.
            StorageError: the folder cannot be written.
        """
        checked_options(self.name, options.vendor, (), reserved={})
        number_format = FORMAT_OF.get(options.precision)
        if number_format not in self.chip.formats or number_format is None:
            raise CompileError(f"{self.name} has no {options.precision}", advice="npuops targets lists the precisions")
        placed = self._place(model, number_format)
        fit = self._fit(model, workload_of(model), placed, number_format)
        if not fit.ok:
            raise CompileError(
                f"{self.name} cannot hold the model: {fit.note}",
                advice="choose a smaller model or input, or a chip with more memory",
            )
        program = program_of(model, self.chip, placed, number_format)
        file = ProgramFile(
            profile=self.chip.name, compiler=self.chip.firmware.compiler.value, program=program, format=number_format
        )
        try:
            (folder / ENTRY).write_bytes(encode_program(file))
            shutil.copyfile(model.path, folder / MODEL)
        except OSError as error:
            raise StorageError(f"cannot write {folder}: {error.strerror}", advice="make room") from error
        return Compilation(entry=ENTRY, files=(ENTRY, MODEL), placement=placed)

    def profile(self, artifact: Artifact, inputs: Tensors) -> Profile:
        """What each layer costs, by the model that the program was priced with.

        Raises:
            IncompatibleArtifactError: built for another chip.
        """
        del inputs
        check_artifact_target(artifact, self.name)
        file = decode_program(artifact.entry.read_bytes())
        model = open_model(artifact.root / file.model)
        placed = self._place(model, file.format)
        found = estimate_model(model, workload_of(model), self.chip, placed, file.format)
        ops = tuple(OpCost(name=one.name, op=one.op, runs_on=one.runs_on, cost=one.us) for one in found.layers)
        return Profile(basis=Basis.MODELLED, unit="us", source=found.source, ops=ops)

    def _place(self, model: Model, number_format: str) -> tuple[Placement, ...]:
        return tuple(rules_of(self.chip.name, number_format)(model))

    def _fit(self, model: Model, workload: Workload, placed: Sequence[Placement], number_format: str) -> Fit:
        plan = plan_memory(model, workload, placed, self.chip, number_format)
        return fit_of(plan, self.chip)


def _identity(chip: Chip) -> str:
    """Name and content: an artifact of a profile that was calibrated anew must not come from the cache."""
    content = msgspec.json.encode(chip, order="deterministic")
    return f"{chip.name} {hashlib.sha256(content).hexdigest()[:16]}"


def _make(variant: str | None) -> VnpuTarget:
    if variant is None:
        raise UnknownTargetError("a virtual NPU needs a profile", advice=f"for example {FAMILY_NAME}:rk3588")
    try:
        file = "" if variant in profile_names() else str(Path(variant).resolve())
        return VnpuTarget(load_profile(variant), file)
    except OptionError as error:
        raise UnknownTargetError(error.message, advice=error.advice) from error


FAMILY = Family(
    name=FAMILY_NAME, summary="chips that are not there, by their profiles", variants=profile_names(), make=_make
)
