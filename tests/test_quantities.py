from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.devices.quantities import MEANINGS, Absent, Kind, Quantity, Reading, Unit, believed


def test_every_quantity_has_a_meaning_and_a_name_that_ends_in_its_unit() -> None:
    endings = {
        Unit.SECONDS: "_seconds",
        Unit.BYTES: "_bytes",
        Unit.HERTZ: "_hertz",
        Unit.WATTS: "_watts",
        Unit.JOULES: "_joules",
        Unit.CELSIUS: "_celsius",
        Unit.RATIO: "_ratio",
        Unit.COUNT: "",
    }
    assert set(MEANINGS) == set(Quantity)
    assert [each for each, meaning in MEANINGS.items() if not each.value.endswith(endings[meaning.unit])] == []


@pytest.mark.parametrize("sentinel", [2.0**32 - 1, 2.0**63 - 14, 2.0**64 - 1, -128, math.nan, math.inf])
def test_a_sentinel_for_not_supported_is_never_an_event_count_or_a_temperature(sentinel: float) -> None:
    for quantity in (Quantity.RESETS, Quantity.UNCORRECTED, Quantity.TEMPERATURE, Quantity.POWER):
        assert isinstance(believed(quantity, sentinel, "/a"), Absent)


@given(st.sampled_from(Quantity), st.floats())
def test_what_is_believed_is_finite_and_in_range(quantity: Quantity, value: float) -> None:
    answer = believed(quantity, value, "/a")
    if isinstance(answer, Reading):
        assert math.isfinite(answer.value)
        assert MEANINGS[quantity].kind is Kind.GAUGE or answer.value >= 0
