"""The learned policy takes what its network forecasts to be worth the most, and says so, wherever that runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from made_policy import made_policy
from made_states import made_state
from npuops.errors import DeviceError, IncompatibleArtifactError, OptionError, RunError
from npuops.hostsched.agent_facts import NetworkClosed
from npuops.hostsched.candidates import CandidateOptions
from npuops.hostsched.features import State
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.learned import Learned, LearnedOptions
from npuops.hostsched.learned_policy import opened_learned
from npuops.hostsched.levels import DEMOTE, LEVELS
from npuops.hostsched.objective import Trust
from npuops.hostsched.plan import Plan
from npuops.hostsched.policy_card import PolicyFolder
from npuops.hostsched.scorer import SHAPE, Outlook, Scene, encode, encode_levels
from npuops.hostsched.scorer_session import open_scorer
from npuops.testing import EventLog

HINTS = (Hint(0, Kind.LATENCY), Hint(0, Kind.BATCH), Hint(0, Kind.BATCH))
DEMOTED = LEVELS.index(DEMOTE)


@dataclass
class Wishful:
    """A scorer to which demoting everybody but the first task is worth everything."""

    placement: str = "wish"
    asked: list[int] = field(default_factory=list)

    def score(self, scene: Scene, levels: np.ndarray) -> Outlook:
        self.asked.append(len(levels))
        count = len(scene.picked)
        good = (levels[:, 1:count] == DEMOTED).mean(axis=1) - 0.5 * (levels[:, 0] != 0)
        miss = np.broadcast_to(np.clip(1 - good, 0, 1)[:, None], (len(levels), count)).astype(np.float32)
        return Outlook(miss, np.ones_like(miss), np.nan_to_num(scene.known), np.zeros(len(levels), np.float32))

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PolicyFolder:
    return made_policy(tmp_path_factory.mktemp("policy") / "made", "ort-cpu", "vnpu:rk3588")


def test_the_plan_is_the_candidate_with_the_best_forecast_and_carries_it() -> None:
    state = made_state(3, 0, hints=HINTS)
    plan = Learned(Wishful()).decide(state)
    assert {task.tid: level.name for task, level in plan.levels.items()} == {101: "demote", 102: "demote"}
    assert plan.expected is not None
    assert plan.expected.miss_share == pytest.approx(0)
    assert plan.expected_default is not None
    assert plan.expected_default.miss_share == pytest.approx(1)
    assert all("late 100% → 0% for task0" in why for why in plan.why.values())
    assert set(plan.why) == set(plan.levels)


def test_no_task_needs_no_plan_and_no_network() -> None:
    scorer = Wishful()
    assert Learned(scorer).decide(made_state(0, 0)) == Plan()
    assert scorer.asked == []


def test_between_decisions_the_plan_stays_unless_tasks_come_or_go() -> None:
    scorer = Wishful()
    learned = Learned(scorer, LearnedOptions(every_us=100_000))
    first = learned.decide(made_state(3, 0, hints=HINTS, at_us=1_000_000))
    assert learned.decide(made_state(3, 1, hints=HINTS, at_us=1_090_000)) is first
    assert len(scorer.asked) == 1
    learned.decide(made_state(2, 1, hints=HINTS[:2], at_us=1_095_000))
    assert len(scorer.asked) == 2
    learned.decide(made_state(2, 1, hints=HINTS[:2], at_us=1_195_000))
    assert len(scorer.asked) == 3


def test_another_plan_of_the_proposer_is_a_reason_to_decide_at_once_and_is_the_fallback() -> None:
    class Fickle:
        name = "fickle"
        lowered = 1

        def decide(self, state: State) -> Plan:
            return Plan({task.id: DEMOTE for task in state.frame.tasks[self.lowered :]})

    scorer, proposer = Wishful(), Fickle()
    learned = Learned(scorer, LearnedOptions(every_us=100_000), proposer=proposer)
    for number, (lowered, asked) in enumerate(((1, 1), (1, 1), (2, 2), (2, 2))):
        proposer.lowered = lowered
        plan = learned.decide(made_state(3, 0, hints=HINTS, at_us=1_000_000 + 20_000 * number))
        assert len(scorer.asked) == asked
        assert plan.fallback is not None
        assert len(plan.fallback.levels) == 3 - lowered


def test_after_too_long_a_time_without_a_look_the_proposers_plan_is_taken_and_nothing_is_scored() -> None:
    class Lowers:
        name = "lowers"

        def decide(self, state: State) -> Plan:
            return Plan({state.frame.tasks[0].id: DEMOTE}, {state.frame.tasks[0].id: "it computes"})

    scorer = Wishful()
    learned = Learned(scorer, LearnedOptions(every_us=0, slowest_us=60_000), proposer=Lowers())
    plans = [
        learned.decide(made_state(3, 0, hints=HINTS, at_us=at_us))
        for at_us in (1_000_000, 1_060_000, 1_160_000, 1_180_000)
    ]
    assert [plan.expected is not None for plan in plans] == [True, True, False, True]
    assert list(plans[2].why.values()) == ["it computes"]
    assert len(scorer.asked) == 3
    alone = Learned(scorer, LearnedOptions(every_us=0, slowest_us=60_000))
    assert all(alone.decide(made_state(3, 0, hints=HINTS, at_us=at_us)).expected for at_us in (1_000_000, 2_000_000))


def test_another_policys_plan_is_among_the_candidates() -> None:
    class Proposer:
        name = "proposer"

        def decide(self, state):
            return Plan({task.id: DEMOTE for task in state.frame.tasks[1:]})

    options = LearnedOptions(search=CandidateOptions(count=2))
    state = made_state(3, 0, hints=HINTS)
    assert len(Learned(Wishful(), options, proposer=Proposer()).decide(state).levels) == 2


@pytest.mark.parametrize(("margin", "takes"), [(0.5, "demote"), (1.5, "nothing")])
def test_a_plan_must_beat_the_proposers_by_the_margin(margin: float, takes: str) -> None:
    class Nothing:
        name = "nothing"

        def decide(self, _: State) -> Plan:
            return Plan()

    learned = Learned(Wishful(), LearnedOptions(trust_told=Trust(margin=margin)), proposer=Nothing())
    plan = learned.decide(made_state(3, 0, hints=HINTS))
    assert {level.name for level in plan.levels.values()} == ({"demote"} if takes == "demote" else set())


@pytest.mark.parametrize("margin", [-0.1, float("inf"), float("nan")])
def test_a_margin_that_cannot_be_is_refused(margin: float) -> None:
    with pytest.raises(OptionError, match="trust"):
        Trust(margin=margin)


def test_tasks_that_the_network_has_no_row_for_are_left_alone() -> None:
    state = made_state(30, 0)
    plan = Learned(Wishful()).decide(state)
    picked = {state.frame.tasks[row].id for row in encode(state).picked}
    assert len(picked) == SHAPE.slots
    assert set(plan.levels) <= picked


def test_the_same_states_give_the_same_plans(policy: PolicyFolder) -> None:
    def plans() -> list[Plan]:
        learned = Learned(open_scorer(policy, "numpy"))
        return [learned.decide(made_state(5, seed, at_us=1_000_000 + 20_000 * seed)) for seed in range(5)]

    assert plans() == plans()


@pytest.mark.parametrize("count", [1, 8, 19])
def test_the_int8_artifact_forecasts_nearly_what_numpy_does(policy: PolicyFolder, count: int) -> None:
    scene = encode(made_state(4, 2))
    levels = encode_levels(scene, np.random.default_rng(0).integers(0, 6, (count, 4)).astype(np.int8))
    exact = open_scorer(policy, "numpy").score(scene, levels)
    scorer = open_scorer(policy, "ort-cpu")
    found = scorer.score(scene, levels)
    assert found.miss.shape == exact.miss.shape == (count, 4)
    assert np.abs(found.miss - exact.miss).mean() < 0.1  # untrained weights, whose outputs are wide
    scorer.close()
    scorer.close()
    with pytest.raises(RunError, match="closed"):
        scorer.score(scene, levels)


def test_a_target_that_the_policy_was_built_for_runs_it(policy: PolicyFolder) -> None:
    scene = encode(made_state(4, 2))
    levels = encode_levels(scene, np.zeros((3, 4), np.int8))
    scorer = open_scorer(policy, "npu:vnpu:rk3588")
    try:
        assert scorer.placement == "npu:vnpu:rk3588"
        exact = open_scorer(policy, "numpy").score(scene, levels)
        assert np.abs(scorer.score(scene, levels).miss - exact.miss).mean() < 0.1
    finally:
        scorer.close()


def test_when_its_network_closes_a_policy_tells_what_a_modelled_npu_took(policy: PolicyFolder) -> None:
    told: dict[str, list[NetworkClosed]] = {}
    for place in ("npu:vnpu:rk3588", "ort-cpu", "numpy"):
        log = EventLog()
        with opened_learned(policy, place, observe=log) as learned:
            for seed in range(3):
                learned.decide(made_state(3, seed, hints=HINTS, at_us=1_000_000 + 1_000_000 * seed))
        told[place] = log.of(NetworkClosed)
    (npu,), (cpu,) = told["npu:vnpu:rk3588"], told["ort-cpu"]
    assert npu.inferences == cpu.inferences >= 3
    assert npu.modelled_mj is not None
    assert npu.modelled_mj > 0
    assert cpu.modelled_mj is None
    assert told["numpy"] == []


def test_places_that_do_not_exist_are_clear_errors(policy: PolicyFolder, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no placement 'gpu'"):
        open_scorer(policy, "gpu")
    with pytest.raises(OptionError, match="no placement 'npu:'"):
        open_scorer(policy, "npu:")
    with pytest.raises(DeviceError):
        open_scorer(policy, "npu:nobody")
    bare = made_policy(tmp_path / "bare")
    with pytest.raises(IncompatibleArtifactError, match="not built for ort-cpu"):
        open_scorer(bare, "ort-cpu")


def test_a_negative_time_between_decisions_is_refused() -> None:
    with pytest.raises(OptionError):
        LearnedOptions(every_us=-1)
    with pytest.raises(OptionError):
        LearnedOptions(slowest_us=-1)
