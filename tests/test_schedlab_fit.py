"""Training learns a world whose laws are known, the same way every time, and never looks at what it is judged on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("jax", reason="training needs the extra `hostsched`")

from jax_calls import fits_of, worths
from made_samples import made_samples
from npuops.errors import DataError, OptionError
from npuops.events import StepProgressed
from npuops.hostsched.objective import WEIGHTS
from npuops.hostsched.scorer import SHAPE
from npuops.schedlab.decisions import expect, judged, quality, same_choice, truth
from npuops.schedlab.fit import FitOptions, fit_apart, split
from npuops.schedlab.network import fresh_weights
from npuops.schedlab.samples import Samples
from npuops.targets.child import call

SHORT = FitOptions(epochs=2, batch=16)


LIMIT_S = 280.0


def fits(many: list[tuple[Samples, FitOptions]]) -> list[dict[str, np.ndarray]]:
    """Weights of several trainings, one after the other in one process."""
    return call(fits_of, {"many": many}, what="training", timeout_s=LIMIT_S).value


def miss_error(samples: Samples, found: np.ndarray) -> float:
    """Mean absolute error where somebody waits."""
    return float((np.abs(found - samples.miss) * samples.miss_weight).sum() / samples.miss_weight.sum())


def best_constant(train: Samples, valid: Samples) -> float:
    return miss_error(valid, np.full_like(valid.miss, np.median(train.miss[train.miss_weight > 0])))


def best_linear(train: Samples, valid: Samples) -> float:
    """Least squares on a task's own features, its own level, and the sums over all tasks of both."""

    def columns(samples: Samples) -> np.ndarray:
        own = np.broadcast_to(samples.tasks[:, None], (*samples.levels.shape, samples.tasks.shape[2]))
        levels = (samples.levels[..., None] == np.arange(6)).astype(np.float32)
        both = np.concatenate([own, levels], axis=3)
        crowd = np.broadcast_to(both.sum(axis=2, keepdims=True), both.shape)
        return np.concatenate([both, crowd], axis=3)[samples.miss_weight > 0]

    answer, *_ = np.linalg.lstsq(columns(train), train.miss[train.miss_weight > 0], rcond=None)
    found = np.zeros_like(valid.miss)
    found[valid.miss_weight > 0] = np.clip(columns(valid) @ answer, 0, 1)
    return miss_error(valid, found)


@pytest.mark.slow
def test_it_learns_a_known_law_far_better_than_a_constant_or_a_linear_fit() -> None:
    samples, options = made_samples(1200, 16, 25), FitOptions(epochs=20, batch=16, patience=20, rate=4e-3)
    fitted = fit_apart(samples, options)
    train, valid, _ = split(samples, options)
    error = miss_error(valid, expect(fitted.weights, valid).miss)
    assert error < 0.5 * best_linear(train, valid)
    assert error < 0.3 * best_constant(train, valid)
    assert fitted.metrics["captured"] > 0.3
    assert fitted.metrics["harmed"] < 0.1
    seen = expect(fitted.weights, valid)
    assert ((seen.waits > 0.5) == (valid.waits > 0.5))[valid.waits_weight > 0].mean() > 0.95


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_one_does_not() -> None:
    samples = made_samples(60, 4, 6)
    one, same, other = fits([(samples, replace(SHORT, seed=seed)) for seed in (1, 1, 2)])
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["task"], other["task"])


def test_no_mix_is_on_both_sides() -> None:
    samples = made_samples(100, 2, 10)
    train, valid, held_out = split(samples, SHORT)
    assert set(train.mix) & set(valid.mix) == set()
    assert set(valid.mix) == set(held_out.tolist())
    assert len(train) + len(valid) == 100


@pytest.mark.slow
def test_what_has_no_weight_is_never_learned_from() -> None:
    samples = made_samples(60, 4, 6)
    nonsense = replace(samples, miss=np.where(samples.miss_weight > 0, samples.miss, 1).astype(np.float32))
    nonsense = replace(nonsense, progress=np.where(samples.progress_weight > 0, samples.progress, 4).astype(np.float32))
    one, other = fits([(samples, SHORT), (nonsense, SHORT)])
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_the_worth_that_is_trained_for_is_the_objectives() -> None:
    samples = made_samples(40, 8, 4)
    found = call(worths, {"samples": samples}, what="worth", timeout_s=LIMIT_S).value
    np.testing.assert_allclose(found, truth(samples, WEIGHTS), atol=1e-5)


@pytest.mark.slow
def test_progress_is_told_epoch_by_epoch_and_training_goes_on_from_given_weights() -> None:
    events: list[object] = []
    samples = made_samples(60, 4, 6)
    first = fit_apart(samples, SHORT, observe=events.append)
    assert [event.done for event in events if isinstance(event, StepProgressed)] == [1, 2]
    further = fit_apart(samples, SHORT, start=first.weights)
    assert further.metrics["loss"] <= first.metrics["loss"]


def test_samples_of_one_mix_cannot_be_judged() -> None:
    with pytest.raises(DataError, match="one mix"):
        fit_apart(made_samples(20, 2, 1), SHORT)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"held_out": 1.0}, {"rate": -1.0}, {"patience": 0}])
def test_options_that_train_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        FitOptions(**wrong)


def test_a_scorer_that_knows_everything_has_no_regret_and_one_that_stays_has_all_of_it() -> None:
    real = truth(made_samples(50, 8, 4))
    assert quality(real, real)["regret"] == 0
    assert quality(real, real)["captured"] == pytest.approx(1)
    stays = np.zeros_like(real)
    assert quality(real, stays)["captured"] == pytest.approx(0)
    assert quality(real, stays)["harmed"] == 0
    assert same_choice(real, real, real) == {"identical": 1.0, "alike": 1.0, "lost": 0.0}
    with pytest.raises(DataError, match="shapes"):
        quality(real, real[:, :3])


def test_who_is_not_told_who_waits_judges_by_its_own_guess() -> None:
    samples = made_samples(30, 4, 3)
    seen = expect(fresh_weights(SHAPE, 0), samples)
    wrong = replace(seen, waits=1 - samples.waits)
    assert np.array_equal(judged(samples, seen), judged(samples, wrong))
    assert not np.array_equal(judged(samples, seen, told=False), judged(samples, wrong, told=False))


def test_a_mix_that_validates_goes_on_validating_when_others_join() -> None:
    few, many = made_samples(200, 2, 40), made_samples(400, 2, 80)
    options = FitOptions()
    before, after = (set(split(samples, options)[2].tolist()) for samples in (few, many))
    assert before == {mix for mix in after if mix < 40}
    assert 0.1 < len(after) / 80 < 0.3
