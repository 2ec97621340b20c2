"""What came of a window: deadlines that passed in it, and queues that were worked off or grew."""

from __future__ import annotations

import numpy as np

from npuops.eevdf.mix import REST, Activity, Doing, Mix, Player
from npuops.eevdf.rules import Rules
from npuops.hostsched.levels import IDLE
from npuops.hostsched.orders import orders_for
from npuops.hostsched.plan import Plan
from npuops.schedlab.consequence import Consequence, Watch
from npuops.schedlab.simulated_host import SimulatedHost

SERVE = Activity(Doing.SERVE, work_us=500, gap_us=2000, periodic=True, slo_us=2000)
HOGS = tuple(Player(f"H{number}", (Activity(Doing.COMPUTE),)) for number in range(4))
MIX = Mix("served", (3_000_000,), (Player("A", (SERVE,)), *HOGS))


def starved(until_us: int = 1_000_000) -> SimulatedHost:
    """A third of what it needs is left to A, so that its queue grows."""
    host = SimulatedHost(MIX, 1, Rules())
    host.run_until(until_us)
    return host


def after(host: SimulatedHost, plan: Plan, window_us: int = 200_000) -> Consequence:
    other = host.copy()
    watch = Watch(other)
    other.apply(orders_for(plan, other.frame()))
    other.run_until(other.now_us + window_us)
    return watch.consequence(other)


def test_a_queue_that_is_worked_off_is_worth_something_although_every_answer_is_late() -> None:
    host = starved()
    left_alone = after(host, Plan(), 40_000)
    helped = after(host, Plan({task.id: IDLE for task in host.tasks[1:]}), 40_000)
    assert left_alone.late_before[0] == helped.late_before[0] >= 90
    assert left_alone.missed[0] == left_alone.due[0] == helped.missed[0] == helped.due[0] == 20
    assert helped.late_after[0] < helped.late_before[0] < left_alone.late_after[0]
    assert helped.miss[0] < left_alone.miss[0] == 1.0


def test_without_a_queue_it_is_the_share_of_late_answers() -> None:
    host = SimulatedHost(Mix("alone", (1_000_000,), (Player("A", (SERVE,)),)), 1, Rules())
    host.run_until(100_000)
    found = after(host, Plan())
    assert found.due[0] == 100
    assert found.miss[0] == found.missed[0] == found.late_before[0] == found.late_after[0] == 0


def test_what_was_dropped_between_phases_waits_no_more() -> None:
    players = (Player("A", (SERVE, REST, SERVE)), *(Player(hog.name, hog.acts * 3) for hog in HOGS))
    host = SimulatedHost(Mix("phases", (500_000, 100_000, 500_000), players), 1, Rules())
    host.run_until(490_000)
    assert after(host, Plan(), 5_000).late_before[0] > 20
    host.run_until(601_000)
    assert after(host, Plan(), 5_000).late_before[0] == 0


def test_who_serves_nobody_has_no_share() -> None:
    host = starved(100_000)
    found = after(host, Plan())
    assert np.array_equal(found.miss[1:], np.zeros(4))
    assert not found.due[1:].any()
