from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostsched_frames import Actor, Stage
from npuops.errors import OptionError
from npuops.hostsched.candidates import MOST, CandidateOptions, candidates, changes, plan_levels, row_of
from npuops.hostsched.features import State
from npuops.hostsched.levels import BOOST, DEMOTE, LEVELS, RESERVE_25, RESERVE_50
from npuops.hostsched.plan import Plan

SHARES = np.array([level.setting.share if level.setting else 0.0 for level in LEVELS])


def state_of(*cpus: int, host: int = 2) -> tuple[Stage, State]:
    stage = Stage(*(Actor(f"t{number}", cpus=count) for number, count in enumerate(cpus)), cpus=host)
    return stage, stage.look()


@given(
    st.lists(st.integers(1, 4), max_size=20),
    st.integers(1, 200),
    st.integers(0, 2**32),
    st.integers(0, 2**32 - 1),
    st.sets(st.sampled_from([level.name for level in LEVELS])),
)
def test_every_candidate_is_legal_and_none_comes_twice(cpus, count, seed, plans, names) -> None:
    _, state = state_of(*cpus, host=4)
    random = np.random.default_rng(plans)
    current, good = (
        Plan({task.id: LEVELS[int(random.integers(len(LEVELS)))] for task in state.frame.tasks}) for _ in range(2)
    )
    options = CandidateOptions(count=count, seed=seed, levels=tuple(sorted(names)))
    rows = candidates(state, current, last_good=good, proposal=Plan(), options=options)
    assert rows.dtype == np.int8
    assert rows.shape[1] == len(cpus)
    assert 1 <= len(rows) <= count
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert (SHARES[rows].sum(axis=1) <= 0.6 * 4 + 1e-9).all()
    allowed = {index for index, level in enumerate(LEVELS) if level.name in names} | {0}
    assert set(rows.reshape(-1).tolist()) <= allowed
    pinned = np.array(cpus, int) < 4
    assert (SHARES[rows[:, pinned]] == 0).all()
    assert (rows[0] == 0).all(), "leaving everything normal is always among them"
    again = candidates(state, current, last_good=good, proposal=Plan(), options=options)
    assert (again == rows).all()


@given(st.integers(0, 99))
def test_a_reservation_that_its_task_has_outgrown_and_any_smaller_one_is_no_choice(seed: int) -> None:
    stage, state = state_of(2, 2, 2)
    options, proposal = CandidateOptions(seed=seed), Plan({stage.id("t0"): RESERVE_25, stage.id("t1"): RESERVE_50})
    free = candidates(state, Plan(), proposal=proposal, options=options)
    assert {LEVELS.index(RESERVE_25), LEVELS.index(RESERVE_50)} <= set(free[:, 0].tolist())
    rows = candidates(
        state, Plan(), proposal=proposal, outgrown={stage.id("t0"): 0.25, stage.id("t1"): 0.5}, options=options
    )
    assert LEVELS.index(RESERVE_25) not in rows[:, 0]
    assert LEVELS.index(RESERVE_50) in rows[:, 0]
    assert (SHARES[rows[:, 1]] == 0).all()


def test_the_known_plans_come_first() -> None:
    stage, state = state_of(2, 2, 2)
    plans = [Plan({stage.id(f"t{number}"): DEMOTE}) for number in range(3)]
    rows = candidates(state, plans[0], last_good=plans[1], proposal=plans[2])
    assert rows[:4].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_everybody_lowered_but_one_is_there_for_each_task() -> None:
    _, state = state_of(2, 2, 2, 2)
    rows = candidates(state, Plan()).tolist()
    for task in range(4):
        assert [0 if number == task else LEVELS.index(DEMOTE) for number in range(4)] in rows


def test_where_few_choices_exist_all_of_them_are_listed() -> None:
    _, state = state_of(2)
    rows = candidates(state, Plan(), options=CandidateOptions(count=MOST))
    assert sorted(rows[:, 0].tolist()) == list(range(len(LEVELS)))


def test_the_most_that_may_be_asked_for_is_found_where_there_is_room() -> None:
    _, state = state_of(*([2] * 10))
    assert candidates(state, Plan(), options=CandidateOptions(count=MOST)).shape == (MOST, 10)


def test_another_seed_gives_other_edits() -> None:
    _, state = state_of(*([2] * 10))
    lists = [candidates(state, Plan(), options=CandidateOptions(seed=seed)).tolist() for seed in (1, 2)]
    assert lists[0] != lists[1]


def test_reservations_that_do_not_fit_any_more_are_given_up_from_the_last_on() -> None:
    stage, state = state_of(2, 2, 2)
    current = Plan({stage.id(f"t{number}"): RESERVE_50 for number in range(3)})
    row = candidates(state, current)[1]
    assert row.tolist() == [LEVELS.index(RESERVE_50)] * 2 + [0]


def test_a_row_and_its_plan_are_the_same() -> None:
    stage, state = state_of(2, 2)
    plan = Plan({stage.id("t1"): BOOST})
    row = row_of(plan, state.frame)
    assert plan_levels(row, state.frame) == plan.levels
    assert changes(np.array([[0, 0], row]), row).tolist() == [1, 0]


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": MOST + 1}, {"levels": ("fifo",)}, {"reserved_share": 2.0}])
def test_what_cannot_be_searched_is_refused(wrong) -> None:
    with pytest.raises(OptionError):
        CandidateOptions(**wrong)
