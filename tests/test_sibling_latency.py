from __future__ import annotations

import pytest

from npuops.errors import DataError, OptionError
from npuops.models.open import open_model
from npuops.models.zoo import zoo_model
from npuops.vnpu.sibling_latency import sibling_latencies
from npuops.vnpu.transfer import transfers_from

MODEL = open_model(zoo_model("digits-cnn").model)


def test_a_model_that_is_slower_than_expected_is_slower_on_every_sibling() -> None:
    law = {one.chip: one.law_us for one in sibling_latencies(MODEL, "hexagon-v73", 1.0)}
    for one in sibling_latencies(MODEL, "hexagon-v73", 1e6):
        assert one.us > law[one.chip]
        assert one.low_us <= one.us <= one.high_us


def test_a_measurement_moves_a_sibling_by_the_share_of_the_pair() -> None:
    slow, slower = (sibling_latencies(MODEL, "rk3588", us) for us in (1e3, 2e3))
    for pair, before, after in zip(transfers_from("rk3588").values(), slow, slower, strict=True):
        assert after.us / before.us == pytest.approx(2**pair.share)


def test_siblings_without_the_format_are_left_out() -> None:
    assert "hexagon-v68" not in {one.chip for one in sibling_latencies(MODEL, "hexagon-v73", 100.0, "fp16")}


def test_a_format_that_the_measured_chip_lacks_is_refused() -> None:
    with pytest.raises(OptionError, match="fp32"):
        sibling_latencies(MODEL, "rk3588", 100.0, "fp32")


def test_a_measurement_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="no measurement"):
        sibling_latencies(MODEL, "rk3588", 0.0)
