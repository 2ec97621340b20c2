"""The rule behind "proved equal"."""

from __future__ import annotations

import numpy as np
import pytest

from npuops.evaluate.equality import IDENTICAL, ROUNDING, Tolerance, all_equal, compare


def judged(got: object, wanted: object, tolerance: Tolerance = ROUNDING) -> bool:
    return all_equal(compare({"y": np.asarray(got)}, {"y": np.asarray(wanted)}, tolerance))


def test_rounding_is_equal_and_a_real_difference_is_not():
    wanted = np.linspace(-3, 3, 100, dtype=np.float32)
    assert judged(wanted * np.float32(1 + 1e-6), wanted)
    assert not judged(wanted * np.float32(1.01), wanted)


def test_the_largest_value_sets_the_scale():
    assert judged(np.float32([1000.0, 1e-4]), np.float32([1000.0, 0.0]))
    assert not judged(np.float32([1.0, 1e-3]), np.float32([1.0, 0.0]))


def test_identical_admits_no_difference_at_all():
    assert judged(np.float32([0.1, 0.2]), np.float32([0.1, 0.2]), IDENTICAL)
    assert not judged(np.nextafter(np.float32([0.1]), np.float32(1)), np.float32([0.1]), IDENTICAL)


@pytest.mark.parametrize("sides", [("got",), ("wanted",), ("got", "wanted")])
def test_nan_is_never_equal(sides: tuple[str, ...]):
    arrays = {side: np.float32([1.0, np.nan if side in sides else 2.0]) for side in ("got", "wanted")}
    assert not judged(arrays["got"], arrays["wanted"])


def test_infinity_equals_itself_only():
    assert judged(np.float32([-np.inf, 1.0]), np.float32([-np.inf, 1.0]))
    assert not judged(np.float32([np.inf, 1.0]), np.float32([-np.inf, 1.0]))
    assert not judged(np.float32([3e38, 1.0]), np.float32([np.inf, 1.0]))


def test_integers_must_be_identical():
    assert judged(np.int64([1, 2]), np.int64([1, 2]))
    assert not judged(np.uint8([1, 2]), np.uint8([1, 3]), Tolerance(absolute=10, relative=10))


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (np.zeros((2, 3), dtype=np.float32), np.zeros((3, 2), dtype=np.float32)),
        (np.zeros(3, dtype=np.float64), np.zeros(3, dtype=np.float32)),
    ],
)
def test_another_shape_or_dtype_is_unequal(got: np.ndarray, wanted: np.ndarray):
    assert not judged(got, wanted)


def test_missing_and_extra_outputs_are_unequal_and_named():
    one = {"y": np.float32([1.0])}
    missing = compare({}, one, ROUNDING)
    extra = compare({**one, "z": np.float32([1.0])}, one, ROUNDING)
    assert [(item.output, item.equal) for item in missing] == [("y", False)]
    assert [(item.output, item.equal) for item in extra] == [("y", True), ("z", False)]


def test_nothing_compared_proves_nothing():
    assert not all_equal(compare({}, {}, ROUNDING))


def test_a_sentinel_does_not_hide_a_difference_beside_it():
    lowest = np.finfo(np.float32).min
    wanted = np.float32([lowest, 1.0, 2.0])
    assert judged(wanted, wanted)
    assert not judged(np.float32([lowest, 1.5, 2.0]), wanted)
    assert not judged(np.float32([lowest * np.float32(0.9), 1.0, 2.0]), wanted)
