from __future__ import annotations

import pytest

from npuops.errors import OptionError
from npuops.targets.vendor_options import VendorOption, checked_options

KNOWN = (
    VendorOption(name="mode", meaning="speed", choices=("fast", "slow")),
    VendorOption(name="threads", meaning="threads", low=1, high=8),
)


def check(**given: str) -> dict[str, str]:
    return checked_options("chip", given, KNOWN, reserved={"soc": "name it in the target"})


def test_good_options_come_back_in_order_of_name() -> None:
    assert list(check(threads="8", mode="slow").items()) == [("mode", "slow"), ("threads", "8")]


def test_a_misspelt_option_names_the_nearest_one() -> None:
    with pytest.raises(OptionError, match="no option 'thread'") as caught:
        check(thread="2")
    assert caught.value.advice == "did you mean 'threads'?"


def test_an_option_that_npuops_sets_says_what_to_do_instead() -> None:
    with pytest.raises(OptionError, match="not yours") as caught:
        check(soc="57")
    assert caught.value.advice == "name it in the target"


@pytest.mark.parametrize("value", ["0", "9", "-1", "1.0", "two", "", " 2", "²", "0x2"])
def test_a_number_outside_its_range_is_refused(value: str) -> None:
    with pytest.raises(OptionError, match="impossible") as caught:
        check(threads=value)
    assert caught.value.advice == "a whole number, 1 to 8"


@pytest.mark.parametrize("value", ["warp", "", "Fast"])
def test_a_word_that_is_no_choice_is_refused(value: str) -> None:
    with pytest.raises(OptionError, match="impossible"):
        check(mode=value)
