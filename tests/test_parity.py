from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from npuops.artifacts.evidence import Comparison, Verdict
from npuops.build.parity import FP32, QUANTIZED, ParityLimits, compare, judge

RNG = np.random.default_rng(1)
LOGITS = RNG.normal(size=(16, 10)).astype(np.float32)


def against(reference: str, got: np.ndarray, wanted: np.ndarray = LOGITS) -> Comparison:
    return compare("toy", "measured", reference, {"y": got}, {"y": wanted})


def test_a_small_loss_against_fp32_passes() -> None:
    noisy = LOGITS + RNG.normal(scale=0.02, size=LOGITS.shape).astype(np.float32)
    assert judge((against(FP32, noisy),), ParityLimits()) == (Verdict.PASS, ())


def test_garbage_fails_with_a_sentence_for_each_limit() -> None:
    verdict, reasons = judge((against(FP32, LOGITS[::-1]),), ParityLimits())
    assert verdict is Verdict.FAIL
    assert any("cosine" in reason for reason in reasons)
    assert any("top-1" in reason for reason in reasons)


def test_the_same_loss_may_pass_against_fp32_and_fail_against_the_quantized_graph() -> None:
    sure = LOGITS + 6 * np.eye(10, dtype=np.float32)[0]
    noisy = sure + np.random.default_rng(2).normal(scale=0.54, size=LOGITS.shape).astype(np.float32)
    limits = ParityLimits()
    assert judge((against(FP32, noisy, sure),), limits)[0] is Verdict.PASS
    assert judge((against(QUANTIZED, noisy, sure),), limits)[0] is Verdict.FAIL


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_never_pass_even_when_both_sides_have_them(bad: float) -> None:
    broken = LOGITS.copy()
    broken[3, 3] = bad
    verdict, reasons = judge((against(FP32, broken, broken),), ParityLimits())
    assert (verdict, reasons) == (Verdict.FAIL, ("toy against fp32, output 'y': NaN or infinity",))


def test_reference_implementations_must_be_equal_to_the_last_bit() -> None:
    limits = ParityLimits()
    assert judge((against("litert", LOGITS),), limits)[0] is Verdict.PASS
    almost = LOGITS.copy()
    almost[0, 0] += 1e-6
    assert judge((against("litert", almost),), limits)[0] is Verdict.FAIL


def test_nothing_compared_is_inconclusive_not_a_pass() -> None:
    assert judge((), ParityLimits())[0] is Verdict.INCONCLUSIVE
    empty = Comparison(engine="toy", basis="measured", reference=FP32, samples=0, outputs=())
    assert judge((empty,), ParityLimits())[0] is Verdict.INCONCLUSIVE


def test_one_flipped_class_in_a_handful_of_samples_is_no_evidence() -> None:
    got = LOGITS[:4] + RNG.normal(scale=0.01, size=(4, 10)).astype(np.float32)
    wanted = LOGITS[:4].copy()
    top, second = np.argsort(wanted[0])[-1], np.argsort(wanted[0])[-2]
    got[0, second] = got[0, top] + 0.001
    assert judge((against(FP32, got, wanted),), ParityLimits())[0] is Verdict.PASS


def test_a_missing_output_and_another_shape_are_errors() -> None:
    with pytest.raises(ValueError, match="no output y"):
        compare("toy", "measured", FP32, {}, {"y": LOGITS})
    with pytest.raises(ValueError, match="shape"):
        compare("toy", "measured", FP32, {"y": LOGITS[:, :5]}, {"y": LOGITS})


def test_an_embedding_is_not_judged_by_classes_that_it_does_not_have() -> None:
    limits = ParityLimits()
    turned = LOGITS.copy()
    turned[:, :2] = turned[:, 1::-1]
    assert (
        judge((against(FP32, turned),), replace(limits, fp32=replace(limits.fp32, min_cosine=0.1)))[0] is Verdict.FAIL
    )
    loose = replace(limits, fp32=replace(limits.fp32, min_cosine=0.1)).without_top1()
    assert judge((against(FP32, turned),), loose)[0] is Verdict.PASS
