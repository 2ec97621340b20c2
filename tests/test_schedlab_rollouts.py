"""States are gathered with what comes of every candidate, from the same instant and with the same arrivals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from npuops.eevdf.mix import Activity, Doing, Mix, Player
from npuops.eevdf.rules import Rules
from npuops.hostsched.levels import DEMOTE, LEVELS
from npuops.hostsched.reactive import Reactive
from npuops.hostsched.static_policy import Default
from npuops.schedlab.rollouts import RolloutOptions, Wanderer, gather
from npuops.schedlab.samples import Samples
from npuops.schedlab.simulated_host import SimulatedHost

SERVE = Activity(Doing.SERVE, work_us=500, gap_us=3000, slo_us=2000)
MIX = Mix(
    "serving beside two hogs",
    (1_500_000,),
    (Player("A", (SERVE,)), *(Player(name, (Activity(Doing.COMPUTE),)) for name in ("H0", "H1"))),
)
OPTIONS = RolloutOptions(candidates=12, share=0.2)


def gathered(seed: int = 1) -> Samples:
    host = SimulatedHost(MIX, 5, Rules(), telling=("A",))
    found = gather(host, Default(), OPTIONS, seed, 7, proposer=Reactive())
    assert found is not None
    return found


def test_the_first_candidate_is_the_default_and_has_all_its_own_progress() -> None:
    samples = gathered()
    assert not samples.levels[:, 0, :3].any()
    assert np.array_equal(samples.progress[:, 0], samples.progress_weight[:, 0])
    assert not samples.switches[:, 0].any()
    assert set(samples.mix.tolist()) == {7}


def test_lowering_the_hogs_is_seen_to_help_who_serves() -> None:
    samples = gathered()
    low = LEVELS.index(DEMOTE)
    helps = (samples.levels[:, :, 0] == 0) & (samples.levels[:, :, 1:3] == low).all(axis=2)
    assert helps.any()
    state, candidate = np.nonzero(helps)
    default = np.average(samples.miss[state, 0, 0], weights=samples.miss_weight[state, 0, 0])
    lowered = np.average(samples.miss[state, candidate, 0], weights=samples.miss_weight[state, candidate, 0])
    assert lowered < default / 2


def test_who_serves_is_waited_for_and_nobody_else() -> None:
    samples = gathered()
    assert samples.waits[:, :3].tolist() == [[1.0, 0.0, 0.0]] * len(samples)
    assert not samples.waits_weight[:, 3:].any()


def test_the_same_seed_gathers_the_same() -> None:
    assert gathered().digest == gathered().digest
    assert gathered(1).digest != gathered(2).digest


def test_an_instant_too_early_to_know_anything_is_no_state() -> None:
    short = Mix("short", (50_000,), MIX.players)
    assert gather(SimulatedHost(short, 5, Rules()), Default(), RolloutOptions(share=1.0), 1, 0) is None


def test_no_window_reaches_over_a_change_of_roles() -> None:
    phases = Mix("phases", (300_000, 300_000), tuple(replace(player, acts=player.acts * 2) for player in MIX.players))
    options = RolloutOptions(candidates=2, share=1.0, horizon_us=200_000, least_us=150_000)
    found = gather(SimulatedHost(phases, 5, Rules()), Default(), options, 1, 0)
    assert found is not None
    # Looks at 60 to 140 ms and at 300 to 440 ms have 150 ms before them: 5 and 8 of them.
    assert len(found) == 13


@pytest.mark.slow
def test_wandering_reaches_states_that_no_policy_causes() -> None:
    host = SimulatedHost(MIX, 5, Rules())
    found = gather(host, Wanderer(3), RolloutOptions(candidates=4, share=1.0), 1, 0)
    assert found is not None
    weights = found.tasks[:, 1, :]
    assert len(np.unique(weights.round(3), axis=0)) > 10
