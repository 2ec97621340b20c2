"""No impossible chip gets through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from made_machine import SPEC, THERMAL
from npuops.errors import OptionError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", ""),
        ("name", "two\nlines"),
        ("cores", 0),
        ("cores", 1025),
        ("dram_bytes", 0),
        ("sram_bytes", -1),
        ("idle_w", -0.1),
        ("idle_w", float("nan")),
        ("busy_w", 0.4),
        ("power_exponent", 0.5),
        ("boot_us", -1),
        ("boot_us", 10**12),
        ("reset_us", -1),
        ("time_slice_us", 0),
        ("time_slice_us", 10**12),
        ("clock_points_mhz", ()),
        ("clock_points_mhz", (0.0, 100.0)),
        ("clock_points_mhz", (200.0, 100.0)),
        ("clock_points_mhz", (1e-300, 100.0)),
        ("clock_points_mhz", (100.0, float("inf"))),
        ("clock_points_mhz", (100.0, float("nan"), 200.0)),
    ],
)
def test_an_impossible_figure_is_named(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=name):
        replace(SPEC, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("junction_r_c_per_w", 0.0),
        ("junction_c_j_per_c", 1e-200),
        ("case_r_c_per_w", float("inf")),
        ("case_c_j_per_c", -1.0),
        ("ambient_c", float("nan")),
        ("ambient_c", -300.0),
        ("resume_c", 20.0),
        ("throttle_c", 75.0),
        ("critical_c", 80.0),
        ("critical_c", float("inf")),
    ],
)
def test_an_impossible_cooling_is_named(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=name):
        replace(THERMAL, **{name: value})


def test_a_chip_can_stand_in_a_warmer_or_colder_place_and_nowhere_it_could_not_cool() -> None:
    assert SPEC.at_ambient(45.0) == replace(SPEC, thermal=replace(THERMAL, ambient_c=45.0))
    assert SPEC.at_ambient(-40.0).thermal.ambient_c == -40.0
    for ambient_c in (75.0, float("nan"), float("inf"), -274.0):
        with pytest.raises(OptionError, match=f"an ambient temperature of {ambient_c} °C: bench needs one below 75.0"):
            SPEC.at_ambient(ambient_c)


@pytest.mark.parametrize("version", ["", "1.0\n2", "1 0", "x" * 65])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(OptionError, match=r"compiler: .* is no version"):
        replace(SPEC.released, compiler=version)
