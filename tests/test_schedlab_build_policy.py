"""A policy is built for its targets like any model: gated, in a process of its own, its decisions compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from made_policy import TRAINED
from made_samples import made_samples
from made_weights import noisy_weights
from npuops.artifacts.evidence import Verdict
from npuops.artifacts.folder import opened
from npuops.errors import DataError, UnknownTargetError
from npuops.events import StepProgressed
from npuops.hostsched.policy_card import CARD_NAME, open_policy
from npuops.hostsched.scorer import SHAPE
from npuops.schedlab.build_policy import SHIPPED, as_inputs, build_policy
from npuops.targets.registry import open_target

SAMPLES = made_samples(60, 8, 4)
WEIGHTS = noisy_weights(SHAPE, 3)


def available() -> dict[str, dict[str, str]]:
    return {name: dict(vendor) for name, vendor in SHIPPED.items() if open_target(name).probe().available}


@pytest.mark.slow
def test_every_target_of_the_shipped_policy_takes_it_whole_and_passes_its_gate(tmp_path: Path) -> None:
    targets = available()
    if set(targets) != set(SHIPPED):
        pytest.skip(f"not installed: {', '.join(set(SHIPPED) - set(targets))}")
    events: list[object] = []
    root = tmp_path / "policy"
    policy, built = build_policy(
        root, WEIGHTS, SHAPE, SAMPLES, TRAINED, targets=targets, candidates=16, observe=events.append
    )
    assert {one.target for one in built} == set(SHIPPED)
    assert any(isinstance(event, StepProgressed) for event in events)
    for one in built:
        path = policy.artifact(one.target)
        assert path is not None
        with opened(path) as artifact:
            manifest = artifact.manifest
            assert manifest.gate is not None
            assert manifest.gate.verdict is Verdict.PASS
            assert manifest.placement.fallback_ratio.ops == 0
        assert one.bytes < 1 << 20
        assert 0 <= one.choices["identical"] <= one.choices["alike"] <= 1
        assert policy.card.trained.metrics[f"{one.target} alike"] == one.choices["alike"]
    assert open_policy(root).card == policy.card


def test_a_build_that_fails_leaves_no_card(tmp_path: Path) -> None:
    root = tmp_path / "policy"
    build_policy(root, WEIGHTS, SHAPE, SAMPLES, TRAINED, targets={})
    assert (root / CARD_NAME).exists()
    with pytest.raises(UnknownTargetError):
        build_policy(root, WEIGHTS, SHAPE, SAMPLES, TRAINED, targets={"nothing": {}})
    assert not (root / CARD_NAME).exists()


def test_the_same_weights_give_the_same_files(tmp_path: Path) -> None:
    one, other = (
        build_policy(tmp_path / name, WEIGHTS, SHAPE, SAMPLES, TRAINED, targets={})[0] for name in ("one", "other")
    )
    assert one.card == other.card


def test_samples_of_another_network_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        build_policy(tmp_path / "policy", {}, SHAPE, SAMPLES, TRAINED, targets={})
    assert not (tmp_path / "policy").exists()


def test_a_states_candidates_are_repeated_or_cut_to_what_the_file_takes() -> None:
    for count in (3, 20):
        inputs = as_inputs(SAMPLES, SHAPE.levels, count).inputs[0]
        assert inputs["levels"].shape == (1, SHAPE.levels, count, SHAPE.slots)
        expected = np.resize(SAMPLES.levels[0], (count, SHAPE.slots))
        np.testing.assert_array_equal(inputs["levels"][0].sum(axis=0), expected >= 0)
