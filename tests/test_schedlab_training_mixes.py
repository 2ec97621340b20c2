"""The mixes that policies learn from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from npuops.eevdf.mix import Doing, arrivals_ns
from npuops.schedlab.mixes import RESERVED_US, is_reserved
from npuops.schedlab.training_mixes import LEAST_TASKS, MOST_TASKS, PHASES_US, SERVE_US, training_mix

SEEDS = st.integers(0, 2**32)
CPUS = st.integers(1, 8)


@given(SEEDS, CPUS)
def test_a_training_mix_never_has_work_of_the_mixes_that_rivals_are_judged_on(seed: int, cpus: int) -> None:
    acts = [act for player in training_mix(seed, cpus).players for act in player.acts]
    assert not any(is_reserved(act.doing, act.work_us) for act in acts)


@given(SEEDS, CPUS)
def test_a_training_mix_stays_in_its_domain_and_depends_on_its_seed_alone(seed: int, cpus: int) -> None:
    mix = training_mix(seed, cpus)
    assert LEAST_TASKS <= len(mix.players) <= MOST_TASKS
    assert all(PHASES_US[0] <= length <= PHASES_US[1] for length in mix.phases_us)
    assert mix.cpus == cpus
    assert mix == training_mix(seed, cpus)
    serving = [act for player in mix.players for act in player.acts if act.doing is Doing.SERVE]
    assert all(SERVE_US[0] <= act.work_us <= SERVE_US[1] and act.slo_us > act.work_us for act in serving)


@given(SEEDS, CPUS)
def test_what_a_training_mix_asks_can_be_served(seed: int, cpus: int) -> None:
    mix = training_mix(seed, cpus)
    for phase in range(len(mix.phases_us)):
        acts = [player.acts[phase] for player in mix.players]
        assert sum(act.work_us / act.gap_us for act in acts if act.doing is Doing.SERVE) < 0.9 * cpus


def test_a_thousand_training_mixes_show_all_there_is() -> None:
    mixes = [training_mix(seed) for seed in range(1000)]
    acts = [act for mix in mixes for player in mix.players for act in player.acts]
    assert {act.doing for act in acts} == set(Doing)
    assert {act.periodic for act in acts if act.doing is Doing.SERVE} == {True, False}
    assert len({mix.players for mix in mixes}) == 1000
    assert {len({player.session for player in mix.players}) for mix in mixes} >= {1, 2, 3, 4}
    assert any(
        player.acts[0].doing is Doing.SERVE and player.acts[-1].doing is Doing.COMPUTE
        for mix in mixes
        for player in mix.players
    )
    work = [act.work_us for act in acts if act.doing is Doing.SERVE]
    low, high = RESERVED_US[Doing.SERVE][0]
    assert any(low - 100 <= length < low for length in work)
    assert any(high < length <= high + 100 for length in work)
    assert any(len(arrivals_ns(mix, mix.players[0], 0)) for mix in mixes[:10])
