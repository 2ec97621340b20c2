"""A simulated host tells what a real one would, takes orders, and can be copied to try something out."""

from __future__ import annotations

import numpy as np
import pytest

from npuops.eevdf.mix import Activity, Doing, Mix, Player
from npuops.eevdf.rules import Rules
from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.hostsched.frame import INVOLUNTARY, RUN_NS, WAIT_NS, GroupId
from npuops.hostsched.hint import Kind
from npuops.hostsched.plan import Orders
from npuops.schedlab.consequence import Watch
from npuops.schedlab.simulated_host import SimulatedHost

SERVE = Activity(Doing.SERVE, work_us=500, gap_us=4000, slo_us=2000)
COMPUTE = Activity(Doing.COMPUTE)
MIX = Mix(
    "three",
    (600_000, 600_000),
    (Player("A", (SERVE, COMPUTE)), Player("H0", (COMPUTE, COMPUTE)), Player("H1", (COMPUTE, COMPUTE), session=1)),
)
SECOND = 1_000_000_000


def host(**options: object) -> SimulatedHost:
    return SimulatedHost(MIX, 3, Rules(), **options)  # type: ignore[arg-type]


def test_a_frame_holds_what_a_real_host_would_tell() -> None:
    simulated = host()
    simulated.run_until(500_000)
    frame = simulated.frame()
    assert frame.at_us == 500_000
    assert [task.command for task in frame.tasks] == ["A", "H0", "H1"]
    assert frame.counters[:, RUN_NS].sum() == pytest.approx(500e6, rel=0.02)
    assert frame.group_nices == {GroupId("autogroup", "0"): 0, GroupId("autogroup", "1"): 0}
    assert frame.hints == (None, None, None)
    assert frame.counters[1, INVOLUNTARY] > 0


def test_only_those_that_tell_are_heard_and_tell_what_they_do() -> None:
    simulated = host(telling=("A", "H0"))
    simulated.run_until(500_000)
    serving, computing, silent = simulated.frame().hints
    assert serving is not None
    assert serving.kind is Kind.LATENCY
    assert serving.slo_us == 2000
    assert 0 < serving.missed <= serving.served
    assert computing is not None
    assert computing.kind is Kind.BATCH
    assert silent is None
    simulated.run_until(700_000)
    changed = simulated.frame().hints[0]
    assert changed is not None
    assert changed.kind is Kind.BATCH


def test_orders_take_effect_and_go_back() -> None:
    simulated = host()
    first, second, third = (task.id for task in simulated.tasks)
    idle = Setting(SchedPolicy.IDLE)
    simulated.apply(Orders({first: None, second: idle, third: None}, {GroupId("autogroup", "1"): 19}))
    assert simulated.frame().settings[1] == idle
    assert simulated.frame().group_nices[GroupId("autogroup", "1")] == 19
    simulated.run_until(500_000)
    lowered = simulated.frame().counters[:, RUN_NS]
    simulated.apply(Orders(dict.fromkeys((first, second, third)), {GroupId("autogroup", "1"): None}))
    assert simulated.frame().settings[1] == Setting()
    simulated.run_until(1_100_000)
    back = simulated.frame().counters[:, RUN_NS] - lowered
    assert back[2] / back.sum() > 2 * lowered[2] / lowered.sum()


def test_a_reservation_that_does_not_fit_is_counted_and_changes_nothing() -> None:
    simulated = host()
    whole = Setting(SchedPolicy.DEADLINE, runtime_us=900, period_us=1000)
    simulated.apply(Orders({task.id: whole for task in simulated.tasks}, {}))
    assert simulated.refused == 2
    assert sum(setting == whole for setting in simulated.frame().settings) == 1


def test_players_of_a_pinned_mix_may_not_run_everywhere() -> None:
    frame = host(pinned=True).frame()
    assert all(task.cpus < frame.host.cpus for task in frame.tasks)


def test_a_copy_meets_the_same_future_and_leaves_the_first_one_alone() -> None:
    simulated = host(telling=("A",))
    simulated.run_until(300_000)
    other, tried = simulated.copy(), simulated.copy()
    tried.apply(Orders({simulated.tasks[0].id: Setting(nice=19)}, {}))
    for each in (simulated, other, tried):
        each.run_until(550_000)
    ours, theirs, changed = (each.frame() for each in (simulated, other, tried))
    assert np.array_equal(ours.counters, theirs.counters)
    assert ours.hints == theirs.hints
    assert not np.array_equal(ours.counters, changed.counters)
    assert ours.settings[0] == Setting()


def test_a_wait_that_lasts_grows_from_look_to_look() -> None:
    simulated = host()
    last = simulated.tasks[0].id
    simulated.run_until(650_000)
    simulated.apply(Orders({last: Setting(SchedPolicy.IDLE)}, {}))
    waits = []
    for moment_us in range(660_000, 1_160_000, 20_000):
        simulated.run_until(moment_us)
        waits.append(int(simulated.frame().counters[0, WAIT_NS]))
    assert waits == sorted(waits)
    assert len(set(waits[-10:])) == 10


def test_what_is_due_in_a_window_is_either_kept_or_missed() -> None:
    simulated = host()
    simulated.run_until(200_000)
    watch = Watch(simulated)
    simulated.run_until(500_000)
    found = watch.consequence(simulated)
    arrived, done = simulated.simulation.answers(0)
    deadlines = arrived + 2_000_000
    window = (deadlines > 200_000_000) & (deadlines <= 500_000_000)
    assert found.due.tolist() == [int(window.sum()), 0, 0]
    late = window & ((done < 0) | (done > deadlines))
    assert found.missed[0] == late.sum()
    assert found.progress[1] > 0
    assert found.turns > 0
