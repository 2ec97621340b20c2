"""The sections of a chip profile as frozen dataclasses, each of which refuses what no chip is. Pure.

A field's name is its key in the TOML file and ends in its unit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from npuops.config import keys_of
from npuops.errors import OptionError, nearest
from npuops.vnpu.figures import Figure, refuse_unless
from npuops.vnpu.perf import FORMATS, MAC_RATES, RATES
from npuops.vnpu.work import Fold

Number = Figure[float]
Count = Figure[int]

LARGEST_ON_CHIP_KIB: Final = 2**26
LARGEST_BESIDE_MIB: Final = 2**24
FASTEST_DRAM_GBPS: Final = 1e5
LARGEST_SIDE: Final = 2**16
HIGHEST_PEAK_TOPS: Final = 1e5
HIGHEST_CLOCK_MHZ: Final = 1e5
MOST_CORES: Final = 4096
"""Ten times and more beyond any chip: 64 GiB on it, 16 TiB beside it, 100 TB/s, arrays of 65,536 along a side, 100,000
TOPS, 100 GHz, 4096 cores. A figure above is a slip of the unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """What multiplies.

    Attributes:
        macs_per_cycle: at int8, of all that works on one inference.
        clock_mhz: that programs are priced at.
        cores: inferences that run at the same time, each with `macs_per_cycle`.
        peak_int8_tops: as published, of the whole chip; a multiply-accumulate is two operations.
        format_rate: number format → its nominal share of the int8 rate.
    """

    macs_per_cycle: Count
    clock_mhz: Number
    cores: Count
    peak_int8_tops: Number
    format_rate: Mapping[str, Number] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: the message names the key.
        """
        _positive(self, "macs_per_cycle", "clock_mhz", "cores", "peak_int8_tops")
        _at_most(self, HIGHEST_PEAK_TOPS, "peak_int8_tops")
        _at_most(self, HIGHEST_CLOCK_MHZ, "clock_mhz")
        _at_most(self, MOST_CORES, "cores")
        for name, rate in self.format_rate.items():
            key = f"format_rate.{name}"
            if name not in FORMATS[1:]:
                raise OptionError(f"{key}: unknown number format", advice=nearest(name, FORMATS[1:]))
            refuse_unless(0 < rate.value <= 1, key, "must be above 0 and not faster than int8, 1", rate.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """The nominal shape of the MAC array, to which sizes of layers are rounded up (`perf.Geometry`)."""

    rows: Count
    columns: Count
    depth: Count
    lanes: Count

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: the message names the key.
        """
        _positive(self, "rows", "columns", "depth", "lanes")
        _at_most(self, LARGEST_SIDE, "rows", "columns", "depth", "lanes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """On the chip and beside it.

    Attributes:
        sram_kib: on-chip memory for one layer's activations and weights, of all that works on one inference.
        weight_cache_kib: on-chip memory in which weights stay from one inference to the next.
        dram_gbps: nominal bandwidth of where weights are streamed from, 10^9 bytes per second.
        dram_mib: DRAM that models may use, the chip's own or the host's.
        pool_kib: on-chip memory in which activations stay between layers, and with them the cached weights; None:
            they go through DRAM.
        flash_mib: where weights are streamed from, if that is not the DRAM.
        depthwise_bytes: bytes in which one int8 weight of a depthwise filter is stored; None: 1. It is above 1 where
            a filter is padded to the width of the array.
    """

    sram_kib: Number
    weight_cache_kib: Number
    dram_gbps: Number
    dram_mib: Number
    pool_kib: Number | None = None
    flash_mib: Number | None = None
    depthwise_bytes: Number | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: the message names the key.
        """
        _not_negative(self, "sram_kib", "weight_cache_kib")
        _positive(self, *(key for key in keys_of(Memory) if key not in {"sram_kib", "weight_cache_kib"}))
        _at_most(self, LARGEST_ON_CHIP_KIB, "sram_kib", "weight_cache_kib", "pool_kib")
        _at_most(self, LARGEST_BESIDE_MIB, "dram_mib", "flash_mib")
        _at_most(self, FASTEST_DRAM_GBPS, "dram_gbps")

    @property
    def pool_bytes(self) -> int:
        """0 where activations go through DRAM."""
        return 0 if self.pool_kib is None else round(self.pool_kib.value * 1024)

    @property
    def sram_bytes(self) -> int:
        """For one layer."""
        return round(self.sram_kib.value * 1024)

    @property
    def weight_cache_bytes(self) -> int:
        """Most that stays on the chip."""
        return round(self.weight_cache_kib.value * 1024)

    @property
    def dram_bytes(self) -> int:
        """Of models."""
        return round(self.dram_mib.value * 2**20)

    @property
    def flash_bytes(self) -> int:
        """0 where weights are in the DRAM."""
        return 0 if self.flash_mib is None else round(self.flash_mib.value * 2**20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Of the NPU alone.

    Attributes:
        idle_w: switched on, nothing running.
        busy_w: every core busy at the top clock.
        tdp_w: what the cooling must get rid of.
        exponent: dynamic power grows with (clock / top clock) to this power.
    """

    idle_w: Number
    busy_w: Number
    tdp_w: Number
    exponent: Number

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: the message names the key.
        """
        _not_negative(self, "idle_w")
        _above(self, "busy_w", "idle_w", or_equal=True)
        _above(self, "tdp_w", "busy_w", or_equal=True)
        refuse_unless(1 <= self.exponent.value <= 4, "exponent", "must be from 1 to 4", self.exponent.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thermal:
    """Cooling and trip points; the names and meanings are those of `spec.ThermalSpec`."""

    junction_r_c_per_w: Number
    junction_c_j_per_c: Number
    case_r_c_per_w: Number
    case_c_j_per_c: Number
    ambient_c: Number
    throttle_c: Number
    resume_c: Number
    critical_c: Number

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: the message names the key.
        """
        _positive(self, "junction_r_c_per_w", "junction_c_j_per_c", "case_r_c_per_w", "case_c_j_per_c")
        _above(self, "resume_c", "ambient_c")
        _above(self, "throttle_c", "resume_c")
        _above(self, "critical_c", "throttle_c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The clock points, in rising order; the last is `compute.clock_mhz`."""

    points_mhz: Figure[tuple[float, ...]]

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: the message names the key.
        """
        points = self.points_mhz.value
        rising = bool(points) and points[0] > 0 and all(low < high for low, high in pairwise(points))
        refuse_unless(rising, "points_mhz", "must be above 0 and rise from one to the next", list(points))


@dataclass(frozen=True, slots=True, kw_only=True)
class Firmware:
    """Versions that were released together, and how long the device is away.

    Two parts go together when they are equally many major versions away from the released ones (`versions.py`).
    """

    driver: Figure[str]
    firmware: Figure[str]
    compiler: Figure[str]
    boot_ms: Number
    reset_ms: Number
    time_slice_us: Count

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: the message names the key.
        """
        for key, figure in (("driver", self.driver), ("firmware", self.firmware), ("compiler", self.compiler)):
            known = re.fullmatch(r"[0-9]+(\.[0-9A-Za-z+_-]+)*", figure.value) is not None
            refuse_unless(known, key, "must be a version that begins with its major number", figure.value)
        _not_negative(self, "boot_ms", "reset_ms")
        _positive(self, "time_slice_us")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Factors around a prediction that hold four out of five truths."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: the message names the key.
        """
        refuse_unless(0 < self.low <= 1, "low", "must be above 0 and at most 1", self.low)
        refuse_unless(1 <= self.high < math.inf, "high", "must be at least 1", self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitError:
    """What to expect of the fitted rates for a model that was not in the fit; shares, not percent.

    Attributes:
        mape: mean absolute error over the truth.
        median: of the same.
        within_10: share of predictions within ±10 %.
        rows: that were fitted.
        how: it was found, for example `leave one family out`.
    """

    mape: float
    median: float
    within_10: float
    rows: int
    how: str

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: the message names the key.
        """
        for key in ("mape", "median"):
            value = getattr(self, key)
            refuse_unless(0 <= value < math.inf, key, "must not be below 0", value)
        refuse_unless(0 <= self.within_10 <= 1, "within_10", "must be a share, from 0 to 1", self.within_10)
        refuse_unless(self.rows >= 1, "rows", "must be at least 1", self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """Rates as fitted to measurements; what `perf` computes with.

    Attributes:
        rates: of `perf.RATES`, in its units; the predictor takes its priors for those that are missing.
        source: fitted on which rows, by which command, when (`from` in the file).
        interval: 80 %.
        error: by cross-validation; None where nobody looked.
        folds: what the compiler seemed to fold away when the rates were fitted; they hold only with it.
    """

    rates: Mapping[str, float]
    source: str
    interval: Interval
    error: FitError | None = None
    folds: frozenset[Fold] = frozenset({Fold.ALL})

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: the message names the key.
        """
        possible = Fold.ALL in self.folds and Fold.NO not in self.folds
        refuse_unless(possible, "folds", "must hold 'all', and not 'no'", sorted(self.folds))
        for name, rate in self.rates.items():
            if name not in RATES:
                raise OptionError(f"rates: unknown key {name!r}", advice=nearest(name, RATES))
            refuse_unless(0 < rate < math.inf, f"rates.{name}", "must be above 0 and finite", rate)
        for name in _MAC_FACTORS:
            factor = self.rates.get(name, 1.0)
            refuse_unless(factor >= 1, f"rates.{name}", "must not be faster than int8, 1", factor)


_MAC_FACTORS: Final = tuple(f"mac.{name}" for name in FORMATS[1:])
SECTIONS: Final[Mapping[str, type]] = {
    "compute": Compute,
    "array": Array,
    "memory": Memory,
    "power": Power,
    "thermal": Thermal,
    "clock": Clock,
    "firmware": Firmware,
}
"""Sections whose keys are figures."""


def figures_of(section: object) -> dict[str, Figure[object]]:
    """Key → figure, in the order of the section; mappings are flattened with a dot."""
    found: dict[str, Figure[object]] = {}
    for key in keys_of(type(section)):
        value = getattr(section, key)
        if isinstance(value, Figure):
            found[key] = value
        elif value is not None:
            found |= {f"{key}.{name}": figure for name, figure in value.items()}
    return found


def faster_than_peak(effective: Effective, nominal_us: float) -> str | None:
    """The first MAC rate that beats the nominal peak, in µs per million MACs; None where none does."""
    slack = 1 - 1e-9  # a fit that ends on the bound is not beyond it
    return next((name for name in MAC_RATES if effective.rates.get(name, math.inf) < nominal_us * slack), None)


def _values(section: object, keys: Iterable[str]) -> Iterator[tuple[str, float]]:
    """Key and value, of the figures that are there."""
    for key in keys:
        figure: Figure[float] | None = getattr(section, key)
        if figure is not None:
            yield key, figure.value


def _positive(section: object, *keys: str) -> None:
    for key, value in _values(section, keys):
        refuse_unless(value > 0, key, "must be above 0", value)


def _not_negative(section: object, *keys: str) -> None:
    for key, value in _values(section, keys):
        refuse_unless(value >= 0, key, "must not be below 0", value)


def _at_most(section: object, most: float, *keys: str) -> None:
    for key, value in _values(section, keys):
        refuse_unless(value <= most, key, f"must be at most {most:.12g}", value)


def _above(section: object, upper: str, lower: str, *, or_equal: bool = False) -> None:
    (_, high), (_, low) = _values(section, (upper, lower))
    words = f"must not be below {lower}, {low}" if or_equal else f"must be above {lower}, {low}"
    refuse_unless(high > low or (or_equal and high == low), upper, words, high)
