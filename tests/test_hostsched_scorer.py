"""The scorer: what the network is told, what its answers mean, and NumPy's short way through it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_states import made_state
from made_weights import noisy_weights
from npuops.errors import DataError
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.levels import BOOST, DEMOTE, IDLE
from npuops.hostsched.plan import Plan
from npuops.hostsched.scorer import SHAPE, STATE_COLUMNS, Outlook, encode, encode_levels, feeds, forecasts, outlook
from npuops.hostsched.scorer_network import NetworkShape, forward, rows_of

COUNTS = st.integers(1, SHAPE.slots)


def scored(tasks: np.ndarray, history: np.ndarray, host: np.ndarray, levels: np.ndarray, repeats: np.ndarray):
    return forward(noisy_weights(SHAPE, 3), tasks, history, host, levels, repeats)


def all_slots(state, candidates: np.ndarray):
    scene = encode(state)
    count, slots = len(scene.picked), SHAPE.slots
    tasks = np.zeros((slots, SHAPE.features), np.float32)
    history = np.zeros((slots, SHAPE.frames, SHAPE.history), np.float32)
    levels = np.full((len(candidates), slots), -1)
    tasks[:count], history[:count] = scene.tasks[:count], scene.history[:count]
    levels[:, :count] = candidates
    return scored(tasks, history, scene.host, levels, np.ones(slots, np.float32))


@given(count=COUNTS, seed=st.integers(0, 1000))
def test_one_row_for_all_empty_slots_gives_what_all_slots_give(count: int, seed: int) -> None:
    state = made_state(count, seed)
    candidates = np.random.default_rng(seed).integers(0, SHAPE.levels, (7, count)).astype(np.int8)
    scene = encode(state)
    few = scored(scene.tasks, scene.history, scene.host, encode_levels(scene, candidates), scene.repeats)
    for one, other in zip(few, all_slots(state, candidates), strict=True):
        rows = len(scene.repeats)
        same = other[:, :rows] if other.ndim == 3 else other[: one.shape[0]]
        np.testing.assert_allclose(one, same, atol=2e-5)


def test_the_network_sees_what_the_rule_would_do() -> None:
    state = made_state(4, 1)
    ids = [task.id for task in state.frame.tasks]
    told = encode(state, Plan({ids[0]: BOOST, ids[1]: DEMOTE, ids[2]: IDLE}))
    assert told.tasks[:4, -1].tolist() == [1.0, -0.5, -1.0, 0.0]
    alone = encode(state)
    assert not alone.tasks[:, -1].any()
    assert np.array_equal(alone.tasks[:, :-1], told.tasks[:, :-1])
    assert np.array_equal(told.tasks[:4, STATE_COLUMNS], state.tasks)


@given(count=st.integers(2, SHAPE.slots), seed=st.integers(0, 1000))
def test_the_order_of_tasks_changes_nothing_but_the_order_of_answers(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scene = encode(made_state(count, seed))
    levels = encode_levels(scene, random.integers(0, SHAPE.levels, (5, count)).astype(np.int8))
    order = np.arange(len(scene.repeats))
    order[:count] = random.permutation(count)
    one = scored(scene.tasks, scene.history, scene.host, levels, scene.repeats)
    other = scored(scene.tasks[order], scene.history[order], scene.host, levels[:, order], scene.repeats[order])
    np.testing.assert_allclose(other[0], one[0][:, order], atol=2e-5)
    np.testing.assert_allclose(other[1], one[1][order], atol=2e-5)
    np.testing.assert_allclose(other[2], one[2], atol=2e-5)


def test_many_candidates_are_scored_as_each_of_them_alone() -> None:
    scene = encode(made_state(8, 1))
    levels = encode_levels(scene, np.random.default_rng(1).integers(0, SHAPE.levels, (300, 8)).astype(np.int8))
    arrays = (scene.tasks, scene.history, scene.host)
    together = scored(*arrays, levels, scene.repeats)
    for number in (0, 137, 299):
        alone = scored(*arrays, levels[number : number + 1], scene.repeats)
        np.testing.assert_allclose(together[0][number], alone[0][0], atol=2e-5)
        np.testing.assert_allclose(together[2][number], alone[2][0], atol=2e-5)


def test_what_a_hint_says_of_who_waits_is_believed_over_the_network() -> None:
    hints = (Hint(0, Kind.LATENCY), Hint(0, Kind.BACKGROUND), Hint(0, slo_us=2000), None)
    scene = encode(made_state(4, 0, hints=hints))
    seen = outlook(scene, np.zeros((1, 5, 2), np.float32), np.full(5, 0.5, np.float32), np.zeros(1, np.float32))
    assert seen.waits[:3].tolist() == [1.0, 0.0, 1.0]
    assert 0.5 < seen.waits[3] < 1


def test_more_tasks_than_slots_leaves_the_rest_unseen_and_never_fails() -> None:
    scene = encode(made_state(40, 0))
    assert len(scene.picked) == SHAPE.slots == len(scene.repeats)
    assert encode_levels(scene, np.zeros((3, 40), np.int8)).shape == (3, SHAPE.slots)


def test_no_task_at_all_is_a_scene_of_empty_slots() -> None:
    scene = encode(made_state(0, 0))
    levels = encode_levels(scene, np.zeros((1, 0), np.int8))
    found = scored(scene.tasks, scene.history, scene.host, levels, scene.repeats)
    seen = outlook(scene, *found)
    assert forecasts(seen).miss_share.tolist() == [0.0]
    assert forecasts(seen).progress.tolist() == [1.0]


def test_the_files_inputs_hold_each_task_in_a_slot_and_fill_up_with_the_first_candidate() -> None:
    scene = encode(made_state(3, 5))
    levels = encode_levels(scene, np.array([[0, 1, 2], [3, 4, 5]], np.int8))
    given_ = feeds(scene, levels, SHAPE, 4)
    assert given_["levels"].shape == (1, SHAPE.levels, 4, SHAPE.slots)
    assert given_["levels"][0].argmax(axis=0)[:, :3].tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2], [0, 1, 2]]
    assert not given_["levels"][..., 3:].any()
    assert given_["tasks"][0, 0, 0].tolist() == [1.0] * 3 + [0.0] * 13
    np.testing.assert_array_equal(given_["history"][0, :, :, 2], scene.history[2].T)


def test_the_slowest_task_that_nobody_waits_for_is_the_progress() -> None:
    seen = Outlook(
        miss=np.array([[0.5, 0.9, 0.9]], np.float32),
        progress=np.array([[0.1, 0.8, 0.6]], np.float32),
        waits=np.array([1.0, 0.0, 0.0], np.float32),
        switches=np.zeros(1, np.float32),
    )
    assert forecasts(seen).of(0).miss_share == pytest.approx(0.5)
    assert forecasts(seen).of(0).progress == pytest.approx(0.6)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_an_answer_that_is_not_finite_decides_nothing(odd: float) -> None:
    scene = encode(made_state(2, 0))
    faces = np.zeros((1, 3, 2), np.float32)
    faces[0, 0, 0] = odd
    with pytest.raises(DataError, match="not finite"):
        outlook(scene, faces, np.zeros(3, np.float32), np.zeros(1, np.float32))


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DataError, match="levels"):
        encode_levels(encode(made_state(2, 0)), np.array([[0, SHAPE.levels]], np.int8))


def test_a_network_of_impossible_sizes_is_refused() -> None:
    sizes = {"features": 4, "history": 2, "host": 2, "levels": 3}
    with pytest.raises(DataError, match="frames"):
        NetworkShape(frames=6, **sizes)
    with pytest.raises(DataError, match="slots"):
        NetworkShape(frames=8, slots=12, **sizes)
    with pytest.raises(DataError, match="below 1"):
        NetworkShape(frames=8, embed=0, **sizes)


def test_the_house_network_is_as_small_as_promised() -> None:
    assert 20_000 <= SHAPE.parameters <= 80_000
    assert rows_of(16, 16).tolist() == [1.0] * 16
    assert rows_of(3, 16).tolist() == [1.0, 1.0, 1.0, 13.0]


def test_weights_of_another_network_are_refused() -> None:
    weights = dict(noisy_weights(SHAPE, 0))
    SHAPE.check(weights)
    with pytest.raises(DataError, match=r"faces\.b"):
        SHAPE.check({name: array for name, array in weights.items() if name != "faces.b"})
    with pytest.raises(DataError, match="shape"):
        SHAPE.check({**weights, "faces": weights["faces"][:-1]})
    with pytest.raises(DataError, match="finite"):
        SHAPE.check({**weights, "faces": weights["faces"] * np.float32("nan")})
