"""The seams of the house where vendors plug in: `Target`, `Runner`, `Session`, and their nouns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from npuops.artifacts.manifest import Artifact
from npuops.models.model import Model, TensorInfo
from npuops.models.placement import Placement, RunsOn
from npuops.targets.report import SupportReport
from npuops.targets.vendor_options import VendorOption
from npuops.units import Basis

Tensors = Mapping[str, NDArray[Any]]
"""Tensor name → array, with the names, shapes and dtypes of the *source* model."""


REFERENCES_DIFFER = "references_differ"
"""Key of a compilation's note: operators on which the target's references are known to round differently."""


class Precision(StrEnum):
    """Number formats of activations and weights."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    A8W8 = "a8w8"
    A16W8 = "a16w8"
    MIXED = "mixed"
    """A8W8 with 16-bit activations where accuracy needs them."""

    @property
    def is_quantized(self) -> bool:
        """Integers with scales: calibration data is needed."""
        return self in {Precision.A8W8, Precision.A16W8, Precision.MIXED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What holds for a target whatever the model: the build pipeline follows it."""

    precisions: tuple[Precision, ...]
    """That npuops builds for."""
    default_precision: Precision
    run_basis: Basis | None
    """What a clock around `Session.run` on this host means; None when nothing runs here."""
    unbuilt_precisions: tuple[Precision, ...] = ()
    """That the chip computes in besides, and npuops does not build for."""
    static_shapes: bool = True
    layernorm_gamma_uint8: bool = False
    """LayerNormalization's gamma must be per-tensor uint8 (facts: HTP error 3110 otherwise)."""
    softmax_output_fixed: bool = False
    """Softmax outputs must have scale 1/256 (TFLite's kernels demand it)."""
    slow_run: bool = False
    """Emulated: evaluate on few samples by default."""
    vendor_options: tuple[VendorOption, ...] = ()
    """What `--set` takes; a build refuses anything else before it begins."""
    reserved_options: Mapping[str, str] = field(default_factory=dict)
    """Options of the vendor that npuops sets itself → what to use instead."""
    licence_note: str = ""
    """Printed once, where a vendor's licence limits use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Whether the target can work on this machine, and if not, why and what to install."""

    target: str
    available: bool
    why_not: str = ""
    install: str = ""
    """A command, for example `pip install 'npuops[qnn]'`."""
    toolchain: Mapping[str, str] = field(default_factory=dict)
    """Package or driver → version; part of the compile cache's key."""
    can_run: str = ""
    """What executes here (`emulator`, `cpu`, `reference kernels`), or "" when nothing does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """Everything besides the model that decides what a compiler writes."""

    precision: Precision
    vendor: Mapping[str, str] = field(default_factory=dict)
    """Validated by the target: vendors accept nonsense silently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation:
    """What `Target.compile` wrote into its folder."""

    entry: str
    """File name that `Runner.open` starts from, relative to the folder."""
    files: tuple[str, ...]
    """All file names to keep, the entry included."""
    reference_files: tuple[str, ...] = ()
    """Those of `files` that no device needs, only references and profiles: they are not compiled size."""
    placement: tuple[Placement, ...]
    """As the vendor's compiler decided it, in its own node names."""
    compatibility: str = ""
    """The vendor's compatibility string, if the toolchain gives one."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Figures that the compiler printed (`inference_us`, `sram_bytes`, …), as text."""
    words: str = ""
    """What the vendor's compiler said; kept for errors and the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpCost:
    """One operator's part of an inference, in the vendor's own node names."""

    name: str
    op: str
    runs_on: RunsOn
    cost: float
    """In `Profile.unit`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where the time of an inference goes. Shares are honest; absolute figures mean what `basis` says."""

    basis: Basis
    unit: str
    """`us`, `cycles`, or `emulator ticks`."""
    source: str
    """The tool and its version."""
    ops: tuple[OpCost, ...]
    """In execution order."""

    @property
    def total(self) -> float:
        """Sum of the costs, in `unit`."""
        return sum(op.cost for op in self.ops)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelledRun:
    """What a device that is only modelled says of one inference: nothing of it was measured."""

    latency_us: float
    """From submission to end, in the device's own time."""
    wait_us: float
    """Part of it that the inference spent on no core, because of others."""
    energy_mj: float
    """Above the device's idle power."""
    temperature_c: float
    """Of the junction, afterwards."""
    clock_mhz: float
    """The most that the device's governor allows, afterwards."""
    basis: Basis = Basis.MODELLED


@runtime_checkable
class ModelledSession(Protocol):
    """A session that also models the time and the energy of its device, beside the numbers."""

    def modelled(self) -> ModelledRun | None:
        """Of the last inference; None before the first.

        Raises:
            RunError: the device is gone.
        """
        ...


class Session(Protocol):
    """A loaded artifact on one device. Not thread-safe unless the target says so."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def run(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """One inference.

        Raises:
            RunError: the vendor's runtime refused; the session stays usable and stays on its device.
            DataError: a name, shape or dtype is not the model's.
        """
        ...

    def close(self) -> None:
        """Give the device back. A second call does nothing."""
        ...


class Runner(Protocol):
    """Opens sessions."""

    def open(self, artifact: Artifact) -> Session:
        """Load a verified artifact.

        Raises:
            ToolchainError: the vendor's runtime is missing or refused.
            IncompatibleArtifactError: built for something else.
        """
        ...


class Target(Protocol):
    """A chip (or an engine) and its toolchain. One file in `targets/` each."""

    @property
    def name(self) -> str:
        """`family` or `family:variant`."""
        ...

    @property
    def traits(self) -> Traits:
        """What holds whatever the model."""
        ...

    @property
    def runner(self) -> Runner | None:
        """Runs artifacts on this machine, or None where that cannot be done honestly."""
        ...

    @property
    def references(self) -> Mapping[str, Runner]:
        """Reference implementations of the compiled graph: no device, but its exact arithmetic."""
        ...

    def probe(self) -> Probe:
        """Look, without importing vendor code, whether the toolchain is here."""
        ...

    def check(self, model: Model) -> SupportReport:
        """Judge a model by published rules, without the toolchain.

        Raises:
            UnsupportedModelError: the target does not take this file format at all.
        """
        ...

    def compile(self, model: Model, options: CompileOptions, folder: Path) -> Compilation:
        """Compile an ONNX file (quantized, if the precision says so) into the empty `folder`.

        Called in a child process with a time limit (`npuops.targets.child`).

        Raises:
            CompileError: with the vendor's words.
            OptionError: a vendor option that does not exist or cannot have that value.
        """
        ...

    def profile(self, artifact: Artifact, inputs: Tensors) -> Profile:
        """Cost of each operator for one inference of a verified artifact.

        Called in a child process with a time limit.

        Raises:
            ToolchainError: the toolchain cannot profile, or failed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What an entry point of the group `npuops.targets` names: all variants of one toolchain."""

    name: str
    summary: str
    variants: tuple[str, ...]
    """Known variants; empty where the family has only one target. The first stands for all when they are listed."""
    make: Callable[[str | None], Target]
    """Variant → target; None where the name has none. Raises UnknownTargetError, also when a variant is needed."""
