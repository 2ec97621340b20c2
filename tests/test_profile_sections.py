"""No impossible chip gets through, section by section."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from npuops.errors import OptionError
from npuops.vnpu.figures import Figure
from npuops.vnpu.profile import Profile, load_profile
from npuops.vnpu.profile_sections import SECTIONS, Effective, FitError, Interval, faster_than_peak, figures_of


@pytest.fixture(scope="module")
def chip() -> Profile:
    return load_profile("rk3588")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("compute", "macs_per_cycle", 0),
        ("compute", "clock_mhz", -1.0),
        ("compute", "cores", 0),
        ("compute", "peak_int8_tops", 0.0),
        ("array", "rows", 0),
        ("array", "columns", -32),
        ("array", "depth", 0),
        ("array", "lanes", 0),
        ("memory", "sram_kib", -1.0),
        ("memory", "weight_cache_kib", -1.0),
        ("memory", "dram_gbps", 0.0),
        ("memory", "dram_mib", 0.0),
        ("memory", "sram_kib", 384e9),
        ("memory", "weight_cache_kib", 1e12),
        ("memory", "pool_kib", 1e9),
        ("memory", "pool_kib", 0.0),
        ("memory", "flash_mib", 1e9),
        ("memory", "flash_mib", -1.0),
        ("memory", "depthwise_bytes", 0.0),
        ("memory", "dram_mib", 1e20),
        ("memory", "dram_gbps", 1e6),
        ("compute", "peak_int8_tops", 1e9),
        ("compute", "clock_mhz", 1e9),
        ("compute", "cores", 10**6),
        ("array", "columns", 10**6),
        ("power", "idle_w", -0.1),
        ("power", "busy_w", 0.05),
        ("power", "tdp_w", 3.0),
        ("power", "exponent", 0.9),
        ("power", "exponent", 4.1),
        ("thermal", "junction_r_c_per_w", 0.0),
        ("thermal", "case_c_j_per_c", -1.0),
        ("thermal", "resume_c", 40.0),  # not above ambient_c
        ("thermal", "resume_c", 85.0),  # not below throttle_c
        ("thermal", "throttle_c", 30.0),
        ("thermal", "critical_c", 85.0),
        ("clock", "points_mhz", ()),
        ("clock", "points_mhz", (0.0, 1000.0)),
        ("clock", "points_mhz", (500.0, 400.0, 1000.0)),
        ("clock", "points_mhz", (1000.0, 1000.0)),
        ("firmware", "driver", "newest"),
        ("firmware", "firmware", ""),
        ("firmware", "compiler", "v2.3"),
        ("firmware", "boot_ms", -1.0),
        ("firmware", "reset_ms", -1.0),
        ("firmware", "time_slice_us", 0),
    ],
)
def test_an_impossible_figure_is_named(chip: Profile, section: str, key: str, value: Any) -> None:
    with pytest.raises(OptionError) as caught:
        replace(getattr(chip, section), **{key: Figure(value, "memory", "")})
    assert repr(list(value) if isinstance(value, tuple) else value) in caught.value.message
    if (section, key) != ("thermal", "resume_c"):
        named = "resume_c" if value == 30.0 else key
        assert named in caught.value.message


@pytest.mark.parametrize(("name", "rate"), [("fp16", 1.1), ("fp16", 0.0), ("int8", 1.0), ("fp12", 0.5)])
def test_a_number_format_is_known_and_not_faster_than_int8(chip: Profile, name: str, rate: float) -> None:
    with pytest.raises(OptionError, match=f"format_rate.{name}"):
        replace(chip.compute, format_rate={name: Figure(rate, "memory", "")})


RATES = {"mac.dense": 2.0, "mac.fp16": 2.0, "overhead.inference": 100.0}
INTERVAL = Interval(low=0.8, high=1.3)


def test_fitted_rates_may_be_some_of_those_that_the_predictor_has() -> None:
    assert Effective(rates=RATES, source="fitted", interval=INTERVAL).error is None


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({"mac.dens": 2.0}, "unknown key 'mac.dens'"),
        ({"mac.dense": 0.0}, "rates.mac.dense must be above 0"),
        ({"mac.dense": float("inf")}, "rates.mac.dense must be above 0"),
        ({"mac.dense": float("nan")}, "rates.mac.dense must be above 0"),
        ({"mac.fp16": 0.9}, "rates.mac.fp16 must not be faster than int8"),
    ],
)
def test_impossible_rates_are_named(rates: dict[str, float], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Effective(rates=rates, source="fitted", interval=INTERVAL)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.2), (1.1, 1.2), (0.8, 0.9), (0.8, float("inf"))])
def test_an_interval_holds_the_prediction_itself(low: float, high: float) -> None:
    with pytest.raises(OptionError):
        Interval(low=low, high=high)


@pytest.mark.parametrize("wrong", [{"mape": -0.1}, {"median": float("inf")}, {"within_10": 61.0}, {"rows": 0}], ids=str)
def test_an_error_is_a_share(wrong: dict[str, Any]) -> None:
    values: dict[str, Any] = {"mape": 0.12, "median": 0.08, "within_10": 0.61, "rows": 40, "how": "by family"}
    assert FitError(**values).rows == 40
    with pytest.raises(OptionError, match=next(iter(wrong))):
        FitError(**values | wrong)


def test_a_rate_on_the_bound_is_not_beyond_it() -> None:
    assert faster_than_peak(Effective(rates={"mac.dense": 0.5}, source="", interval=INTERVAL), 0.5) is None
    rates = {"mac.dense": 2.0, "mac.depthwise": 0.4}
    assert faster_than_peak(Effective(rates=rates, source="", interval=INTERVAL), 0.5) == "mac.depthwise"


def test_every_figure_of_a_section_is_listed_with_formats_by_name(chip: Profile) -> None:
    assert list(figures_of(chip.compute))[-1] == "format_rate.fp16"
    assert sum(len(figures_of(getattr(chip, section))) for section in SECTIONS) == 32
