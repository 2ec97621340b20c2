"""Chip profiles: what is known of a chip, each figure with its source, for the predictor and for the device.

A profile is a TOML file; the bundled ones lie in `profiles/`. docs/profiles.md tells the format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from npuops.config import read_options, read_toml, refuse_unknown, toml_text
from npuops.errors import OptionError, nearest
from npuops.vnpu.figures import KEYS, Figure, read_section, refuse_unless
from npuops.vnpu.perf import FORMATS, MAC_RATES, Geometry
from npuops.vnpu.profile_sections import (
    SECTIONS,
    Array,
    Clock,
    Compute,
    Effective,
    Firmware,
    Memory,
    Power,
    Thermal,
    faster_than_peak,
    figures_of,
)
from npuops.vnpu.spec import MachineSpec, ThermalSpec
from npuops.vnpu.versions import Versions

SCHEMA: Final = 1
PEAK_SLACK: Final = 0.05
"""Vendors round: published peak and 2 x MACs x clock x cores may differ by this share (bundled profiles: at most 0.044,
RV1126's 2.0 TOPS of 1.91)."""

DRAM_RATES: Final = ("memory.weights", "memory.spill")
"""Rates of `perf` that are bounded by the DRAM."""

_SUFFIX: Final = ".toml"
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A chip.

    Attributes:
        name: as in `vnpu:NAME`.
        title: for people.
        published_device: the `device` strings of published latency tables that this chip stands for.
        formats: number formats that it runs, of `perf.FORMATS`.
        notes: what a reader must know besides.
        sources: key → what it stands for.
        effective: fitted rates; None while nobody fitted any.
    """

    name: str
    title: str
    vendor: str
    published_device: tuple[str, ...]
    formats: tuple[str, ...]
    notes: str
    sources: Mapping[str, str]
    compute: Compute
    array: Array
    memory: Memory
    power: Power
    thermal: Thermal
    clock: Clock
    firmware: Firmware
    effective: Effective | None = None

    def __post_init__(self) -> None:
        """Refuse sections that contradict each other.

        Raises:
            OptionError: the message names the key.
        """
        refuse_unless(_NAME.fullmatch(self.name) is not None, "name", "must be lower case words with -", self.name)
        for name in self.formats:
            if name not in FORMATS:
                raise OptionError(f"formats: unknown number format {name!r}", advice=nearest(name, FORMATS))
        twice = len(set(self.formats)) < len(self.formats)
        refuse_unless("int8" in self.formats and not twice, "formats", "must hold int8, each once", list(self.formats))
        rated = set(self.compute.format_rate) | {"int8"}
        differing = sorted(rated ^ set(self.formats))
        refuse_unless(not differing, "[compute] format_rate", "must have the formats besides int8", differing)
        self._check_peak()

    def _check_peak(self) -> None:
        compute, points = self.compute, self.clock.points_mhz.value
        clock, peak = compute.clock_mhz.value, compute.peak_int8_tops.value
        refuse_unless(points[-1] == clock, "[clock] points_mhz", f"must end in compute.clock_mhz, {clock}", points[-1])
        computed = 2e-6 * compute.macs_per_cycle.value * clock * compute.cores.value
        refuse_unless(
            abs(computed / peak - 1) <= PEAK_SLACK,
            "[compute] peak_int8_tops",
            f"must be about 2 x macs_per_cycle x clock_mhz x cores, {computed:.4g}",
            peak,
        )
        if self.effective is not None:
            name = faster_than_peak(self.effective, self.nominal_us_per_mmac)
            rule = f"is better than the nominal peak, {self.nominal_us_per_mmac:.4g} µs per million MACs"
            refuse_unless(name is None, f"[effective] rates.{name}", rule, self.effective.rates.get(name or ""))

    @property
    def nominal_us_per_mmac(self) -> float:
        """Microseconds per million MACs at int8 if every unit of one inference worked in every cycle."""
        return 1e6 / (self.compute.macs_per_cycle.value * self.compute.clock_mhz.value)

    @property
    def figures(self) -> dict[str, dict[str, Figure[object]]]:
        """Section → key → figure, in the order of the file format."""
        return {section: figures_of(getattr(self, section)) for section in SECTIONS}

    @property
    def nominal_rates(self) -> dict[str, float]:
        """Rates of `perf` that follow from nominal figures: of MACs from the peak, of DRAM from its bandwidth."""
        us_per_mb = 1e3 / self.memory.dram_gbps.value
        return dict.fromkeys(MAC_RATES, self.nominal_us_per_mmac) | dict.fromkeys(DRAM_RATES, us_per_mb)

    @property
    def utilisation(self) -> dict[str, float]:
        """Fitted rate → the share of its nominal that it reaches; empty without fitted rates.

        Of the bandwidth it can be above 1: weights may be compressed, or stay on the chip.
        """
        rates = {} if self.effective is None else self.effective.rates
        return {name: nominal / rates[name] for name, nominal in self.nominal_rates.items() if name in rates}


def profile_names() -> tuple[str, ...]:
    """The bundled ones, by name."""
    found = (entry.name for entry in _bundled().iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX)))


def load_profile(name_or_path: str | Path) -> Profile:
    """A bundled profile by its name, or a user's by its path (with a `/`, or ending in `.toml`).

    Raises:
        OptionError: no such profile, or as `read_profile`.
    """
    text, where = profile_text(name_or_path)
    return read_profile(text, where=where)


def profile_text(name_or_path: str | Path) -> tuple[str, str]:
    """The TOML of a profile, and what to call it in an error.

    Raises:
        OptionError: no such profile, or its file cannot be read.
    """
    name = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in name or name.endswith(_SUFFIX):
        path = Path(name_or_path)
        return toml_text(path), str(path)
    if name not in profile_names():
        raise OptionError(
            f"no chip profile is called {name!r}",
            advice=f"{nearest(name, profile_names())}; a file of your own is given by its path",
        )
    return _bundled().joinpath(f"{name}{_SUFFIX}").read_text(encoding="utf-8"), f"{name}{_SUFFIX}"


def read_profile(text: str, *, where: str) -> Profile:
    """A profile from TOML.

    Args:
        text: of the file.
        where: what to call it in an error.

    Raises:
        OptionError: not TOML, an unknown, missing or mistyped key, a figure without a listed source, or an
            impossible value.
    """
    values = read_toml(text, where=where)
    refuse_unknown(values, [*_TOP, "schema", "sources", *SECTIONS, "effective"], where)
    if values.get("schema") != SCHEMA:
        raise OptionError(f"{where}: schema must be {SCHEMA}, found {values.get('schema')!r}")
    sources = _sources(values.get("sources", {}), where)
    parts: dict[str, Any] = {
        section: read_section(kind, values.get(section, {}), sources, f"{where}: [{section}]")
        for section, kind in SECTIONS.items()
    }
    top = read_options(_Top, {key: values[key] for key in _TOP if key in values}, where=where, advice=KEYS)
    effective = _effective(values["effective"], f"{where}: [effective]") if "effective" in values else None
    try:
        return Profile(**{key: getattr(top, key) for key in _TOP}, **parts, sources=sources, effective=effective)
    except OptionError as error:
        raise OptionError(f"{where}: {error.message}", advice=error.advice) from error


def geometry_of(profile: Profile) -> Geometry:
    """What the cost law needs of the chip's shape."""
    array, memory, effective = profile.array, profile.memory, profile.effective
    folds = {} if effective is None else {"folds": effective.folds}
    return Geometry(
        rows=array.rows.value,
        columns=array.columns.value,
        depth=array.depth.value,
        lanes=array.lanes.value,
        sram_bytes=memory.sram_bytes,
        weight_cache_bytes=memory.weight_cache_bytes,
        **folds,
    )


def machine_spec(profile: Profile) -> MachineSpec:
    """What the virtual device needs of the chip."""
    power, memory, versions = profile.power, profile.memory, profile.firmware
    return MachineSpec(
        name=profile.name,
        cores=profile.compute.cores.value,
        clock_points_mhz=profile.clock.points_mhz.value,
        dram_bytes=memory.dram_bytes + memory.flash_bytes,
        sram_bytes=memory.pool_bytes or memory.sram_bytes,
        idle_w=power.idle_w.value,
        busy_w=power.busy_w.value,
        power_exponent=power.exponent.value,
        thermal=ThermalSpec(**{key: figure.value for key, figure in profile.figures["thermal"].items()}),  # type: ignore[arg-type]
        released=Versions(
            driver=versions.driver.value, firmware=versions.firmware.value, compiler=versions.compiler.value
        ),
        boot_us=round(versions.boot_ms.value * 1e3),
        reset_us=round(versions.reset_ms.value * 1e3),
        time_slice_us=versions.time_slice_us.value,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Top:
    name: str
    title: str
    vendor: str
    published_device: tuple[str, ...]
    formats: tuple[str, ...]
    notes: str


_TOP: Final = ("name", "title", "vendor", "published_device", "formats", "notes")


def _sources(table: object, where: str) -> Mapping[str, str]:
    if not isinstance(table, Mapping) or not all(isinstance(text, str) and text for text in table.values()):
        raise OptionError(f"{where}: [sources] must be a table of texts, found {table!r}")
    return table


def _effective(table: object, where: str) -> Effective:
    if not isinstance(table, Mapping):
        raise OptionError(f"{where} must be a table, found {table!r}")
    refuse_unknown(table, ["rates", "from", "interval", "error", "folds"], where)
    if "from" not in table:
        raise OptionError(f"{where} has no 'from'", advice="say on which rows it was fitted, by which command, when")
    named = {"source" if key == "from" else key: value for key, value in table.items()}
    return read_options(Effective, named, where=where, advice=KEYS)


def _bundled() -> Any:
    return files("npuops.vnpu").joinpath("profiles")
