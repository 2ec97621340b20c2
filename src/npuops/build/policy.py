"""What a release gate demands. `npuops.config.load_options(GatePolicy, path)` reads it from TOML.

Every field that is None (or an empty table) demands nothing. Two rules hold whatever the policy says, so
`GatePolicy()` is the default policy of `npuops build`: the parity verdict is `pass`, and no output holds a NaN or
an infinity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from npuops.build.version_pins import parse_pin
from npuops.errors import OptionError
from npuops.units import Basis

AccuracyLimit = Literal["max_drop", "min_value", "min_samples"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityPolicy:
    """Limits on every output of every comparison with `against`."""

    against: Literal["fp32", "quantized"] = "fp32"
    min_cosine: float | None = None
    min_sqnr_db: float | None = None
    min_top1_agreement: float | None = None
    """Share of samples, 0 to 1."""
    max_abs: float | None = None
    min_samples: int = 1
    """With fewer samples a limit is inconclusive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementPolicy:
    """How much may run on the CPU, as ratios 0 to 1."""

    max_fallback_ops: float | None = None
    max_fallback_macs: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SizePolicy:
    """Bytes of the files that the compiler wrote (role `compiled`)."""

    max_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyPolicy:
    """One inference. A figure of another basis says nothing about this limit, so the basis is required."""

    max_us: float | None = None
    basis: Basis | None = None

    def __post_init__(self) -> None:
        if (self.max_us is None) != (self.basis is None):
            raise OptionError(
                "[latency] needs both max_us and basis",
                advice=f"basis is one of {', '.join(Basis)}: an emulator's clock says nothing about silicon",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignaturePolicy:
    """Whether a signature is demanded, and whose."""

    required: bool = False
    trusted_keys: tuple[str, ...] = ()
    """Files of public keys (PEM), relative to the policy file."""

    def __post_init__(self) -> None:
        if self.required and not self.trusted_keys:
            raise OptionError(
                "[signature] required = true needs trusted_keys",
                advice="name the PEM files of the public keys that may sign; a signature of just anyone proves nothing",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePolicy:
    """All that a gate demands; each section of the TOML file is one field."""

    accuracy: Mapping[str, Mapping[AccuracyLimit, float]] = field(default_factory=dict)
    """Metric name → limits: `[accuracy.top1]` with `max_drop = 0.01`."""
    parity: ParityPolicy = field(default_factory=ParityPolicy)
    placement: PlacementPolicy = field(default_factory=PlacementPolicy)
    size: SizePolicy = field(default_factory=SizePolicy)
    latency: LatencyPolicy = field(default_factory=LatencyPolicy)
    signature: SignaturePolicy = field(default_factory=SignaturePolicy)
    toolchain: Mapping[str, str] = field(default_factory=dict)
    """Package → version pin (`npuops.build.version_pins`)."""

    def __post_init__(self) -> None:
        for spec in self.toolchain.values():
            parse_pin(spec)
        for metric, limits in self.accuracy.items():
            if not set(limits) - {"min_samples"}:
                raise OptionError(f"[accuracy.{metric}] limits nothing", advice="set max_drop or min_value")
            for name, value in limits.items():
                _refuse_not_finite(f"accuracy.{metric}.{name}", value)
        for section in (self.parity, self.placement, self.size, self.latency):
            for part in fields(section):
                _refuse_not_finite(part.name, getattr(section, part.name))
        shares = {
            "min_top1_agreement": self.parity.min_top1_agreement,
            "max_fallback_ops": self.placement.max_fallback_ops,
            "max_fallback_macs": self.placement.max_fallback_macs,
        }
        for field_name, share in shares.items():
            if share is not None and not 0 <= share <= 1:
                # 5 was meant as percent, and would let everything through.
                words = f"{field_name} = {share:g} is not within 0 to 1"
                raise OptionError(words, advice=f"5 % is {field_name} = 0.05")


def _refuse_not_finite(name: str, value: object) -> None:
    """TOML knows nan and inf; a limit of either would let everything or nothing through."""
    if isinstance(value, float) and not math.isfinite(value):
        raise OptionError(f"{name} = {value}: a limit is a finite number")
