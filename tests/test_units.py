from __future__ import annotations

import pytest

from npuops.units import format_bytes, format_count, format_us


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")])
def test_bytes_read_in_binary_prefixes(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (999, "999"), (300_800_000, "300.8 M"), (2e15, "2000.0 T")])
def test_counts_read_in_decimal_prefixes(count: float, text: str) -> None:
    assert format_count(count) == text


@pytest.mark.parametrize(("us", "text"), [(12.4, "12 µs"), (1234.5, "1.23 ms"), (2_500_000, "2.50 s")])
def test_durations_read_in_the_unit_that_fits(us: float, text: str) -> None:
    assert format_us(us) == text
