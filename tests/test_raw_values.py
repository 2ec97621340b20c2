from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.devices.quantities import Absent
from npuops.devices.raw_values import SCALES, Form, Raw, parse


@pytest.mark.parametrize(
    ("text", "raw", "wanted"),
    [
        ("45123\n", Raw.MILLI_CELSIUS, 45.123),
        ("-5000", Raw.MILLI_CELSIUS, -5.0),
        ("1850", Raw.MHZ, 1.85e9),
        ("2500000", Raw.UW, 2.5),
        ("350000", Raw.MW, 350.0),
        ("1500000", Raw.US, 1.5),
        ("104857600", Raw.BYTES, 104857600),
        ("0", Raw.MHZ, 0.0),
    ],
)
def test_a_number_is_scaled_to_its_base_unit_without_noise(text: str, raw: Raw, wanted: float) -> None:
    assert parse(text, Form.NUMBER, raw) == wanted


@pytest.mark.parametrize(
    ("text", "ratio"),
    [
        ("NPU load:  Core0: 90%, Core1:  0%, Core2:  0%,\n", 0.3),
        ("NPU load: Core0: 12%, Core1: 14%", 0.13),
        ("NPU load:  12%\n", 0.12),
        ("NPU load:  0%", 0.0),
        ("NPU load:  Core0: 100%, Core1: 100%, Core2: 100%,", 1.0),
    ],
)
def test_rknpu_load_is_the_mean_of_the_cores(text: str, ratio: float) -> None:
    assert parse(text, Form.RKNPU_LOAD, Raw.PERCENT) == pytest.approx(ratio)


def test_the_two_columns_of_hailos_monitor() -> None:
    text = "INUSE\tTOTAL\n100\t1000\n"
    assert parse(text, Form.VDMA_IN_USE, Raw.COUNT) == 100
    assert parse(text, Form.VDMA_TOTAL, Raw.COUNT) == 1000


@pytest.mark.parametrize(
    "text", ["", "N/A", "0x10", "1 2", "1.5", "nan", "inf", "1e3", "--1", "٣", "1" * 21, "\x00", "\n\n"]
)
def test_garbage_is_absent_with_what_was_found(text: str) -> None:
    for form in Form:
        answer = parse(text, form, Raw.COUNT)
        assert isinstance(answer, Absent)
        assert answer.why.isprintable()


@given(st.text().filter(lambda text: not text.strip().lstrip("+-").isdigit()), st.sampled_from(Raw))
def test_no_text_but_digits_is_a_number(text: str, raw: Raw) -> None:
    assert isinstance(parse(text, Form.NUMBER, raw), Absent)


@given(st.text(alphabet="NPU load:Core0123% ,\t\nINSETOTAL"), st.sampled_from(Form))
def test_text_that_is_nearly_right_never_raises(text: str, form: Form) -> None:
    assert isinstance(parse(text, form, Raw.PERCENT), int | float | Absent)


def test_every_raw_unit_has_a_scale() -> None:
    assert set(SCALES) == set(Raw)
