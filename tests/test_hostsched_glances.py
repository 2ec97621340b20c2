from __future__ import annotations

import pytest

from hostsched_frames import Actor, Stage
from npuops.hostsched.features import Features, State
from npuops.hostsched.glances import MANY, Glances, sums_for
from npuops.hostsched.plan import Plan
from npuops.hostsched.policy_names import policy_named


class Network:
    """A policy that says nothing of what it looks at."""

    name = "network"

    def decide(self, state: State) -> Plan:  # noqa: ARG002 - whatever it sees
        return Plan()


def test_frame_window_and_seen_are_those_of_the_features() -> None:
    stage, glances, features = Stage(Actor("a"), Actor("b")), Glances(), Features()
    for step in range(30):
        if step == 10:
            stage.actors.append(Actor("c"))
        if step == 20:
            stage.actors.reverse()
            stage.actors.pop()
        stage.at_us += 20_000
        frame = stage.frame()
        found, full = glances.update(frame), features.update(frame)
        assert found.frame is frame
        assert found.window_us == full.window_us
        assert found.seen.tolist() == full.seen.tolist()


def test_an_array_that_is_not_there_is_an_error_not_a_zero() -> None:
    state = Glances().update(Stage(Actor("a")).frame())
    with pytest.raises(IndexError):
        state.tasks[0]


def test_seen_stops_counting_where_nobody_cares_any_more() -> None:
    stage, glances = Stage(Actor("a")), Glances()
    frame = stage.frame()
    for _ in range(MANY + 10):
        state = glances.update(frame)
    assert state.seen.tolist() == [MANY]


@pytest.mark.parametrize("name", ["default", "reactive", "static:nice=5@x"])
def test_policies_that_look_at_frames_alone_get_no_features(name: str) -> None:
    assert isinstance(sums_for(policy_named(name)), Glances)


def test_whoever_says_nothing_gets_features_and_who_only_observes_none() -> None:
    assert isinstance(sums_for(Network()), Features)
    assert isinstance(sums_for(None), Glances)
