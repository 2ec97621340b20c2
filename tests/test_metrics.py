from __future__ import annotations

import numpy as np
import pytest

from npuops.evaluate.metrics import cosine, max_abs, output_parity, sqnr_db, top1_agreement


def test_equal_outputs_have_cosine_one_no_noise_and_no_difference() -> None:
    x = np.random.default_rng(0).normal(size=(50, 1000)).astype(np.float32)
    parity = output_parity("y", x, x)
    assert parity.cosine == 1.0, "exactly: a policy may demand it"
    assert (parity.sqnr_db, parity.max_abs, parity.top1_agreement, parity.finite) == (None, 0.0, 1.0, True)


def test_sqnr_is_twenty_decibels_for_a_tenth_of_the_amplitude() -> None:
    x = np.ones((2, 8))
    assert sqnr_db(x * 1.1, x) == pytest.approx(20.0)


def test_noise_on_a_zero_signal_is_a_number_not_minus_infinity() -> None:
    assert sqnr_db(np.ones((1, 4)), np.zeros((1, 4))) == -200.0


def test_a_sample_of_zeros_on_one_side_only_has_no_cosine() -> None:
    x = np.ones((2, 4))
    zero = np.zeros((2, 4))
    assert cosine(zero, x) is None
    assert cosine(zero, zero) == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_figures_that_could_pass(bad: float) -> None:
    x = np.ones((2, 4))
    y = x.copy()
    y[1, 2] = bad
    parity = output_parity("y", y, x)
    assert (parity.finite, parity.cosine, parity.sqnr_db, parity.top1_agreement) == (False, None, None, None)


def test_top1_counts_samples_whose_largest_class_is_the_same() -> None:
    wanted = np.eye(4)
    got = wanted[[0, 1, 2, 0]]
    assert top1_agreement(got, wanted) == 0.75
    assert top1_agreement(got[:, None, :], wanted[:, None, :]) == 0.75


@pytest.mark.parametrize("shape", [(3, 1), (3, 4, 4)])
def test_top1_has_no_meaning_without_one_vector_of_classes(shape: tuple[int, ...]) -> None:
    assert top1_agreement(np.ones(shape), np.ones(shape)) is None


def test_integers_do_not_overflow() -> None:
    a, b = np.array([[255]], dtype=np.uint8), np.array([[0]], dtype=np.uint8)
    assert max_abs(b, a) == 255


def test_another_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match="output y"):
        output_parity("y", np.ones((2, 3)), np.ones((2, 4)))
