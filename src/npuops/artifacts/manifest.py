"""The manifest: everything that is known about an artifact, with a digest of every file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from npuops.artifacts.evidence import Accuracy, Gate, Parity
from npuops.models.model import TensorInfo
from npuops.models.placement import PlacementReport
from npuops.models.preprocessing import ImagePreprocessing
from npuops.models.steps import Pipeline

SCHEMA = "npuops.artifact/1"
MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "signature.dsse.json"


class Role(StrEnum):
    """What a file in an artifact is for."""

    COMPILED = "compiled"
    """Written by the vendor's compiler; what a device needs."""
    REFERENCE = "reference"
    """Made on the way to the compiled files; only reference implementations and profiles read it."""
    QUANTIZED = "quantized"
    """The quantized graph that was compiled (the parity reference)."""
    SOURCE = "source"
    """The fp32 model, when it is kept."""
    REPORT = "report"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file, relative to the artifact's folder, with forward slashes."""

    name: str
    role: Role
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """The source model."""

    name: str
    digest: str
    format: str
    opset: int | None
    macs: int | None
    weight_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How the numbers were chosen."""

    method: str
    """`minmax`, `percentile`, `entropy` or `mse`."""
    per_channel: bool
    activations: str
    """`uint8`, `uint16`, or `mixed`."""
    weights: str
    calibration_samples: int
    calibration_digest: str
    tensors_16bit: tuple[str, ...] = ()
    """Names of the activations kept at 16 bits in a mixed graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRecord:
    """How the compiler was called."""

    seconds: float
    cache_key: str
    vendor_options: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    """Figures that the compiler printed, as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What `manifest.json` holds. `digest` is over the canonical JSON with `digest` empty."""

    schema: str = SCHEMA
    digest: str = ""
    created: str
    """RFC 3339, UTC."""
    npuops: str
    """Version that wrote it."""
    model: ModelIdentity
    target: str
    precision: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    entry: str
    """The file that a runner starts from."""
    files: tuple[FileRecord, ...]
    quantization: Quantization | None
    placement: PlacementReport
    """As the vendor's compiler decided it."""
    toolchain: Mapping[str, str]
    compatibility: str
    compile: CompileRecord
    parity: Parity | None = None
    """None only while the artifact is being built."""
    accuracy: Accuracy | None = None
    gate: Gate | None = None
    labels: tuple[str, ...] | None = None
    """Class names of the first output's last axis."""
    image: ImagePreprocessing | None = None
    """How pixels become the input, as in calibration; None where no image was ever spoken of."""
    pipeline: Pipeline | None = None
    """What a server does before and after an inference; left out of the file when None, as in files of before it."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A folder whose files were verified against its manifest (or, while building, are being made)."""

    root: Path
    manifest: Manifest

    @property
    def entry(self) -> Path:
        """The file that a runner starts from."""
        return self.root / self.manifest.entry

    def file(self, role: Role) -> Path | None:
        """The first file with that role, or None."""
        for record in self.manifest.files:
            if record.role is role:
                return self.root / record.name
        return None
