from __future__ import annotations

import numpy as np
import pytest

from npuops.vnpu.bit_flips import ONE_IN, flip_bits
from npuops.vnpu.conditions import Corruption


def corrupted(array: np.ndarray, bit: int, seed: int = 3) -> np.ndarray:
    copy = array.copy()
    flip_bits({"y": copy}, Corruption(op="Conv", bit=bit, seed=seed))
    return copy


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "float16", "float32", "float64"])
def test_the_same_seed_hits_the_same_elements_and_hitting_twice_heals(dtype: str) -> None:
    array = np.arange(1, 1001).astype(dtype)
    once = corrupted(array, 1)
    assert (once != array).sum() == 1000 // ONE_IN
    assert (once == corrupted(array, 1)).all()
    assert (corrupted(once, 1) == array).all()
    assert (corrupted(array, 1, seed=4) != once).any()


def test_a_low_bit_is_a_small_error_and_a_high_one_is_not() -> None:
    array = np.linspace(1, 2, 640, dtype=np.float32)
    small, large = (np.abs(corrupted(array, bit) / array - 1).max() for bit in (0, 7))
    assert 0 < small < 0.02
    assert large > 0.4


@pytest.mark.parametrize("bit", range(8))
def test_a_truth_value_has_one_bit_and_stays_a_truth_value(bit: int) -> None:
    array = np.arange(320) % 2 == 0
    found = corrupted(array, bit)
    assert (found != array).sum() == 320 // ONE_IN
    assert set(found.view(np.uint8)) == {0, 1}


def test_every_output_is_hit_and_empty_or_scalar_ones_do_no_harm() -> None:
    outputs = {"a": np.zeros(3, np.int8), "b": np.zeros((0, 4), np.float32), "c": np.array(1.0)}
    flip_bits(outputs, Corruption(op="Conv", bit=2, seed=1))
    assert outputs["a"].any()
    assert outputs["c"] != 1.0
