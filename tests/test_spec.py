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
        ("cores", 0),
        ("dram_bytes", 0),
        ("sram_bytes", -1),
        ("idle_w", -0.1),
        ("idle_w", float("nan")),
        ("busy_w", 0.4),
        ("power_exponent", 0.5),
        ("boot_us", -1),
        ("reset_us", -1),
        ("time_slice_us", 0),
        ("clock_points_mhz", ()),
        ("clock_points_mhz", (0.0, 100.0)),
        ("clock_points_mhz", (200.0, 100.0)),
    ],
)
def test_an_impossible_figure_is_named(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=name):
        replace(SPEC, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("junction_r_c_per_w", 0.0),
        ("case_c_j_per_c", -1.0),
        ("ambient_c", float("nan")),
        ("resume_c", 20.0),
        ("throttle_c", 75.0),
        ("critical_c", 80.0),
    ],
)
def test_an_impossible_cooling_is_named(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=name):
        replace(THERMAL, **{name: value})
