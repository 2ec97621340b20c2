"""The policy that ships is whole, and does in the simulator what its page says of it."""

from __future__ import annotations

import numpy as np
import pytest

from npuops.artifacts.folder import opened
from npuops.hostsched.policy_card import bundled_policy, open_policy
from npuops.hostsched.reactive_options import load_reactive
from npuops.schedlab.line_up import line_up
from npuops.schedlab.mixes import CONTROLS, HELD_OUT, by_name
from npuops.schedlab.outcome import judge
from npuops.schedlab.simulated_theatre import SimulatedTheatre

POLICY = open_policy(bundled_policy())
RIVALS = {rival.name: rival for rival in line_up(("tuned-reactive", "learned"), {}, {})}


def in_time(mix: str, rival: str, *, seed: int = 1, hints: bool = False) -> float:
    take = SimulatedTheatre().play(by_name(mix), RIVALS[rival], seed, hints=hints, filmed=False)
    share = judge(take.recording, rival).slo_share
    assert share is not None
    return share


def test_it_is_built_for_every_target_and_its_rule_is_with_it() -> None:
    assert {target.partition(":")[0] for target in POLICY.card.artifacts} == {"ort-cpu", "qnn-htp", "ethos-u", "vnpu"}
    for target in POLICY.card.artifacts:
        path = POLICY.artifact(target)
        assert path is not None
        with opened(path) as artifact:
            assert artifact.manifest.target == target
    assert POLICY.rule is not None
    load_reactive(POLICY.rule)
    assert 20_000 <= POLICY.card.shape.parameters <= 80_000


def gain(*, hints: bool, seeds: int) -> float:
    """In time beside the tuned rule, mean over the held-out mixes and so many seeds."""
    return float(
        np.mean(
            [
                in_time(mix, "learned", seed=seed, hints=hints) - in_time(mix, "tuned-reactive", seed=seed, hints=hints)
                for mix in HELD_OUT
                for seed in range(1, seeds + 1)
            ]
        )
    )


@pytest.mark.slow
def test_without_hints_it_answers_more_in_time_than_the_tuned_rule_on_mixes_that_nobody_trained_on() -> None:
    assert gain(hints=False, seeds=3) > 0.02


@pytest.mark.slow
def test_with_hints_where_the_rule_is_hard_to_beat_it_comes_close_to_it() -> None:
    assert gain(hints=True, seeds=2) > -0.02


@pytest.mark.slow
@pytest.mark.parametrize("mix", [name for name in CONTROLS if name != "pure-batch"])
def test_where_little_can_be_won_it_is_not_worse_than_the_default(mix: str) -> None:
    assert in_time(mix, "learned") >= in_time(mix, "default") - 0.01
