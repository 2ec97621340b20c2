"""`ethos-u:<config>`: Arm Ethos-U by our QDQ → TFLite writer and Vela; run by two bit-exact references, no device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from npuops.artifacts.manifest import Artifact
from npuops.errors import CompileError, OptionError, StorageError, ToolchainError, UnknownTargetError
from npuops.models.model import Model, ModelFormat
from npuops.models.tflite_file import read_tflite
from npuops.targets.ethos_u_configs import CONFIGURATIONS, RESERVED, Configuration, vendor_options
from npuops.targets.ethos_u_reference import REFERENCES, io_of, io_of_model
from npuops.targets.ethos_u_rules import advice_for, place_on
from npuops.targets.ethos_u_vela import COMPILED, IO, PER_LAYER, PLAIN, layer_costs, run_vela
from npuops.targets.protocol import (
    REFERENCES_DIFFER,
    Compilation,
    CompileOptions,
    Family,
    Precision,
    Probe,
    Profile,
    Runner,
    Tensors,
    Traits,
)
from npuops.targets.registry import unknown_variant
from npuops.targets.report import SupportReport, support_report
from npuops.targets.tflite_ops import convert
from npuops.targets.tflite_writer import INSTALL
from npuops.targets.vendor_options import checked_options
from npuops.units import Basis

PACKAGES: Final = ("ethos-u-vela", "ai-edge-litert", "tosa-tools", "tosa-converter-for-tflite")
TRAITS: Final = Traits(
    precisions=(Precision.A8W8,),
    default_precision=Precision.A8W8,
    run_basis=None,
    softmax_output_fixed=True,
)


@dataclass(frozen=True, slots=True)
class EthosUTarget:
    """One accelerator configuration."""

    configuration: Configuration

    @property
    def name(self) -> str:
        """`ethos-u:ethos-u85-256`."""
        return f"ethos-u:{self.configuration.accelerator}"

    @property
    def traits(self) -> Traits:
        """8-bit integers, static shapes; no clock here means anything."""
        return replace(TRAITS, vendor_options=vendor_options(self.configuration), reserved_options=RESERVED)

    @property
    def runner(self) -> None:
        """Nothing on a host runs what Vela writes."""
        return None

    @property
    def references(self) -> Mapping[str, Runner]:
        """`litert` and `tosa`, which agree bit for bit."""
        return REFERENCES

    def probe(self) -> Probe:
        """Look for the four packages of the extra; `compile` needs them all, since a gate follows it."""
        found = {name: _version(name) for name in PACKAGES}
        missing = [name for name, installed in found.items() if installed is None]
        if missing:
            why_not = f"not installed: {', '.join(missing)}"
            return Probe(target=self.name, available=False, why_not=why_not, install=INSTALL)
        toolchain = {name: installed for name, installed in found.items() if installed is not None}
        return Probe(target=self.name, available=True, toolchain=toolchain, can_run="reference kernels")

    def check(self, model: Model) -> SupportReport:
        """Judge by Vela's published operator constraints and by what our writer can express.

        Fit has no limit: every memory mode of vela.ini leaves the arena unbounded (a dedicated SRAM is a cache before
        DRAM), so that the bytes which Vela allocated, in the artifact's notes, decide on a given board.
        """
        nodes = place_on(model, self.configuration.generation)
        return support_report(self.name, model, nodes, advice=advice_for(model))

    def compile(self, model: Model, options: CompileOptions, folder: Path) -> Compilation:
        """Write TFLite (or take the TFLite source as it is), then run Vela.

        Raises:
            UnsupportedModelError: nodes without an int8 TFLite form, all of them named.
            CompileError: Vela's words.
            OptionError: the option, or the precision, is not one of this target's.
            StorageError: the folder cannot be written.
        """
        if options.precision not in TRAITS.precisions:
            raise OptionError(f"{self.name} has no precision {options.precision}", advice="use --precision a8w8")
        chosen = checked_options(self.name, options.vendor, vendor_options(self.configuration), reserved=RESERVED)
        _prepare(model, folder)
        result = run_vela(folder, self.configuration, chosen)
        return Compilation(
            entry=COMPILED,
            files=(COMPILED, PLAIN, IO, PER_LAYER),
            reference_files=(PLAIN, IO, PER_LAYER),
            placement=result.placement,
            notes={**result.notes, **_inexact(folder)},
            words=result.words,
        )

    def profile(self, artifact: Artifact, inputs: Tensors) -> Profile:  # noqa: ARG002 - Vela's estimate knows no data
        """Vela's cycles for each operator, from the file that compilation left in the artifact.

        Raises:
            ToolchainError: the file is missing or is not Vela's.
        """
        path = artifact.root / PER_LAYER
        try:
            ops = layer_costs(path)
        except (OSError, KeyError, ValueError) as error:
            raise ToolchainError(f"{path.name} cannot be read: {error!r}", advice="build the artifact again") from error
        tool = artifact.manifest.toolchain.get("ethos-u-vela", "of unknown version")
        return Profile(basis=Basis.VENDOR_ESTIMATE, unit="cycles", source=f"ethos-u-vela {tool}", ops=ops)


def _prepare(model: Model, folder: Path) -> None:
    """`model.tflite` and its I/O description."""
    if model.format is ModelFormat.TFLITE:
        if not model.is_quantized:
            raise CompileError(
                f"{model.path} is a float TFLite file", advice="convert it to ONNX and quantize it with `npuops build`"
            )
        data, description = model.path.read_bytes(), io_of_model(model)
    else:
        file = convert(model.path)
        data, description = file.data, io_of(file)
    try:
        (folder / PLAIN).write_bytes(data)
        (folder / IO).write_text(description, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error}", advice="choose another folder") from error


INEXACT: Final = frozenset({"FULLY_CONNECTED", "RESIZE_BILINEAR"})
"""LiteRT and TOSA round these differently, by one level; our writer makes the first only from a TFLite source."""


def _inexact(folder: Path) -> dict[str, str]:
    found = INEXACT & {operator.op for operator in read_tflite(folder / PLAIN).operators}
    return {REFERENCES_DIFFER: ", ".join(sorted(found))} if found else {}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _make(variant: str | None) -> EthosUTarget:
    if variant is None:
        raise UnknownTargetError(
            "ethos-u needs an accelerator configuration", advice=f"one of: {', '.join(CONFIGURATIONS)}"
        )
    if variant not in CONFIGURATIONS:
        raise unknown_variant("ethos-u", variant, tuple(CONFIGURATIONS))
    return EthosUTarget(CONFIGURATIONS[variant])


FAMILY = Family(
    name="ethos-u",
    summary="Arm Ethos-U55, U65 and U85 microNPUs (Vela; TOSA and LiteRT references)",
    variants=tuple(CONFIGURATIONS),
    make=_make,
)
