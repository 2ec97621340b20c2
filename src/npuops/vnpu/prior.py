"""What is believed of a chip before a row of it was measured: its data sheet, and what published chips have in common.

A rate is nominal x ratio: the array's rates scale with the nominal peak, the vector unit's with its 3/4th power (wider
chips have relatively narrower vector units), the memory's with the nominal bandwidth, through which inputs and outputs
pass, too; overheads do not scale. The ratios are medians over published chips, printed by
`benchmarks/predictor/validate.py --ratios`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.vnpu.perf import FORMAT_FACTORS, MAC_RATES, OVERHEADS, RATES, VECTOR_RATES, Floats

GROUPS: Final = (MAC_RATES, (*VECTOR_RATES, "memory.local"), ("memory.weights", "memory.spill"), ("memory.host",))
"""Rates that a fast chip has all small and a slow chip all large."""

VECTOR_EXPONENT: Final = 0.75

BETWEEN_SD: Final = 1.2
"""Spread of a group's level from chip to chip, in natural logarithms: a factor of 3.3."""
WITHIN_SD: Final = 0.3
"""Spread of the ratios inside a group."""
OVERHEAD_SD: Final = 0.7
FACTOR_SD: Final = 0.25
SIBLING_SHARE: Final = 0.35
"""Chips of one vendor differ from each other by this share of the above."""

_AT: Final = {name: index for index, name in enumerate(RATES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """A Gaussian over the logarithms of a chip's rates."""

    mean: Floats
    """float64[RATES]"""
    covariance: Floats
    """float64[RATES, RATES]"""


def nominal_logs(us_per_mmac: float, dram_gbps: float, format_rate: Mapping[str, float]) -> Floats:
    """Logarithms of the rates of a chip that did nothing but its nominal best; 0 where nothing nominal is known.

    Args:
        us_per_mmac: microseconds per million int8 MACs at the nominal peak of what works on one inference.
        dram_gbps: nominal bandwidth, 10^9 bytes per second.
        format_rate: number format → its nominal share of the int8 rate.
    """
    logs = np.zeros(len(RATES))
    for name in MAC_RATES:
        logs[_AT[name]] = np.log(us_per_mmac)
    for name in (*VECTOR_RATES, "memory.local"):
        logs[_AT[name]] = VECTOR_EXPONENT * np.log(us_per_mmac)
    for name in ("memory.weights", "memory.spill", "memory.host"):
        logs[_AT[name]] = np.log(1e3 / dram_gbps)
    for name, rate in format_rate.items():
        logs[_AT[f"mac.{name}"]] = -np.log(rate)
    return logs


def prior_from(nominal: Floats, ratios: Floats, *, siblings: bool) -> Prior:
    """The prior of a chip.

    Args:
        nominal: `nominal_logs` of the chip.
        ratios: logarithms of rate by nominal rate, of chips that were measured.
        siblings: those chips are of the same vendor.
    """
    share = SIBLING_SHARE**2 if siblings else 1.0
    return Prior(mean=nominal + ratios, covariance=share * broad_covariance())


def broad_covariance() -> Floats:
    """Of a chip of which only the nominal figures are known."""
    within = {**dict.fromkeys(OVERHEADS, OVERHEAD_SD), **dict.fromkeys(FORMAT_FACTORS, FACTOR_SD)}
    covariance = np.diag([within.get(name, WITHIN_SD) ** 2 for name in RATES])
    for group in GROUPS:
        where = [_AT[name] for name in group]
        covariance[np.ix_(where, where)] += BETWEEN_SD**2
    return np.asarray(covariance)


def common_ratios(fitted: Sequence[Floats], nominal: Sequence[Floats], used: Sequence[NDArray[np.bool_]]) -> Floats:
    """Medians of fitted by nominal log rates over the chips whose rows say something of a rate; 0 where none does."""
    ratios = np.stack(fitted) - np.stack(nominal)
    known = np.stack(used)
    return np.array([np.median(ratios[which, at]) if which.any() else 0.0 for at, which in enumerate(known.T)])


def ratios_of(values: Mapping[str, float]) -> Floats:
    """A table of ratios as a vector of logarithms."""
    return np.asarray(np.log([values[name] for name in RATES]))


COMMON_RATIOS: Final[Mapping[str, float]] = {
    "mac.dense": 1.36,
    "mac.pointwise": 2.12,
    "mac.depthwise": 1,
    "mac.grouped": 1.4,
    "mac.volumetric": 1.62,
    "mac.fully-connected": 7.38,
    "mac.attention": 4.32,
    "vector.elementwise": 71.8,
    "vector.pool": 58.8,
    "vector.lookup": 94.2,
    "vector.norm": 88.8,
    "vector.move": 68.2,
    "vector.resize": 91,
    "memory.weights": 1.28,
    "memory.local": 175,
    "memory.spill": 1.11,
    "memory.host": 0.907,
    "overhead.layer": 1.66,
    "overhead.inference": 101,
    "mac.fp16": 0.925,
    "mac.w8a16": 0.97,
    "mac.fp32": 1.28,
    "vector.fp16": 1.76,
    "vector.w8a16": 1.44,
    "vector.fp32": 0.963,
}
"""Rate by nominal rate, medians over the published chips of `benchmarks/predictor` (its `validate.py --ratios`)."""
