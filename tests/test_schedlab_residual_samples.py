"""Forecasts of the plans that held are put beside what came of them: as the simulator counts it for training."""

from __future__ import annotations

import numpy as np
import pytest

from made_weights import noisy_weights
from npuops.eevdf.mix import REST, Activity, Doing, Mix, Player
from npuops.eevdf.rules import Rules
from npuops.errors import DataError
from npuops.hostsched.features import Features
from npuops.hostsched.guard import Checked
from npuops.hostsched.levels import IDLE
from npuops.hostsched.orders import orders_for
from npuops.hostsched.plan import NORMAL, Plan
from npuops.hostsched.reactive import Reactive
from npuops.hostsched.scorer import SHAPE, encode, encode_levels
from npuops.hostsched.scorer_network import forward
from npuops.hostsched.static_policy import Default
from npuops.hostsched.trace_wire import Entry
from npuops.schedlab.correction import Residuals
from npuops.schedlab.episode import play_under
from npuops.schedlab.outcome import judge
from npuops.schedlab.recording import Recording
from npuops.schedlab.residual_samples import residuals_of
from npuops.schedlab.simulated_host import SimulatedHost

SERVE = Activity(Doing.SERVE, work_us=500, gap_us=2000, periodic=True, slo_us=2000)
SCAN = Activity(Doing.SCAN)
MIX = Mix("served", (1_000_000, 1_000_000), (Player("A", (SERVE, REST)), *(Player(n, (SCAN, SCAN)) for n in "HIJK")))
WEIGHTS = noisy_weights(SHAPE, 3)
START_US = 5_000_000


class Helper:
    """Lets A run before all others, always."""

    name = "helper"

    def decide(self, state: object) -> Plan:
        del state
        return Plan({task.id: IDLE for task in SimulatedHost(MIX, 1, Rules()).tasks[1:]})


def played(policy: Default | Helper, every: int = 1) -> tuple[list[Entry], Recording]:
    """What the agent would have recorded, and what became of it."""
    host, features, entries = SimulatedHost(MIX, 1, Rules()), Features(), []
    for moment_us in range(20_000, MIX.duration_us, 20_000):
        host.run_until(moment_us)
        frame = host.frame()
        plan = policy.decide(features.update(frame))
        host.apply(orders_for(plan, frame))
        if moment_us // 20_000 % every == 0:
            entries.append(Entry(frame=frame, checked=Checked(plan)))
    return entries, play_under(policy, MIX, 1, Rules())


def residuals(policy: Default | Helper, start_us: int = 0, every: int = 1) -> Residuals:
    entries, recording = played(policy, every)
    default = judge(play_under(Default(), MIX, 1, Rules()))
    pids = {task.command: task.pid for task in SimulatedHost(MIX, 1, Rules()).tasks}
    return residuals_of(entries, WEIGHTS, Reactive(), recording, default, pids=pids, start_us=start_us, play=7)


def test_under_the_default_all_progress_is_that_of_the_default() -> None:
    found = residuals(Default()).progress
    np.testing.assert_allclose(found.came, 1.0)
    assert len(found.came) == 8, "four who scan, in two phases; who serves or rests makes no progress"
    assert set(found.play.tolist()) == {7}


def test_late_shares_are_those_of_the_windows_in_which_the_plan_stayed() -> None:
    late, helped = residuals(Default()).miss, residuals(Helper()).miss
    assert len(late.came) == len(helped.came) == 5, "one second in windows of 200 ms"
    assert late.came[1:].tolist() == [1.0] * 4, "the queue grows, and nobody is served in time"
    assert helped.came.tolist() == [0.0] * 5
    assert (late.weight[1:] > helped.weight[1:]).all(), "who is late already could be late again"


def test_a_forecast_is_the_networks_own_number_for_the_plan_that_held() -> None:
    entries, _ = played(Helper())
    features, rule = Features(), Reactive()
    for entry in entries[:3]:
        state = features.update(entry.frame)
        proposal = rule.decide(state)
    scene = encode(state, proposal)
    held = Helper().decide(state)
    row = np.array([[0 if held.levels.get(task.id, NORMAL) == NORMAL else 2 for task in state.frame.tasks]], np.int8)
    levels = encode_levels(scene, row)
    faces = forward(WEIGHTS, scene.tasks, scene.history, scene.host, levels, scene.repeats)[0]
    assert residuals(Helper()).miss.forecast[0] == pytest.approx(float(faces[0, 0, 0]), abs=1e-6)


def test_a_plan_that_changes_ends_its_window_and_a_short_one_tells_nothing() -> None:
    entries, recording = played(Default())
    default = judge(recording)
    pids = {task.command: task.pid for task in SimulatedHost(MIX, 1, Rules()).tasks}
    plans = [Plan(), Helper().decide(None)]
    hasty = [Entry(frame=one.frame, checked=Checked(plans[n % 2])) for n, one in enumerate(entries)]
    slow = [Entry(frame=one.frame, checked=Checked(plans[n // 5 % 2])) for n, one in enumerate(entries)]

    def count(some: list[Entry]) -> int:
        arguments = (some, WEIGHTS, Reactive(), recording, default)
        return len(residuals_of(*arguments, pids=pids, start_us=0, play=0).miss.came)

    assert count(hasty) == 0
    assert count(slow) == 10


def test_what_was_seen_before_the_mix_began_or_of_others_does_not_count() -> None:
    found = residuals(Default(), start_us=START_US)
    assert found.miss.plays == found.progress.plays == 0


def test_a_default_of_another_mix_is_refused() -> None:
    entries, recording = played(Default(), 10)
    other = Mix("other", MIX.phases_us, MIX.players)
    default = judge(play_under(Default(), other, 1, Rules()))
    with pytest.raises(DataError):
        residuals_of(entries, WEIGHTS, Reactive(), recording, default, pids={}, start_us=0, play=0)
