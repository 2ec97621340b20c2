import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from npuops.eevdf import world as at
from npuops.eevdf.activity import CALL_NS, TALK_NS
from npuops.eevdf.balance import place_wake
from npuops.eevdf.fair_queue import note_lag
from npuops.eevdf.mix import REST, Activity, Doing, Mix, Player, arrivals_ns
from npuops.eevdf.rules import Rules
from npuops.eevdf.setting import DEFAULT, SchedPolicy, Setting
from npuops.eevdf.simulation import Simulation
from npuops.errors import OptionError

SECOND = 1_000_000_000
TICK = 4_000_000
EXACT = Rules(switch_cost_ns=0, cache_refill_ns=0, tick_jitter_ns=0)
HOG = Activity(Doing.COMPUTE)
RARE = Activity(Doing.SERVE, work_us=500, gap_us=20_000, slo_us=2000)
IDLE = Setting(SchedPolicy.IDLE)


def mix(*players: Player, seconds: float = 100.0, cpus: int = 1) -> Mix:
    return Mix("test", (int(seconds * 1e6),), players, cpus)


def hogs(number: int, **more: int) -> Mix:
    return mix(*(Player(f"h{n}", (HOG,)) for n in range(number)), **more)


def shares(simulation: Simulation) -> list[float]:
    return [float(run) / simulation.now_ns for run in simulation.counters()[:, 0]]


def test_equal_hogs_take_turns_at_ticks_however_short_their_slice() -> None:
    for setting in (DEFAULT, Setting(slice_us=100)):
        simulation = Simulation(hogs(2), 1, EXACT)
        for player in (0, 1):
            simulation.set(player, setting)
        simulation.run_until(SECOND)
        assert simulation.switches() in range(249, 253)
        one, other = simulation.counters()[:, 0]
        assert abs(one - other) <= TICK


def test_a_long_slice_makes_long_turns() -> None:
    simulation = Simulation(hogs(2), 1, EXACT)
    for player in (0, 1):
        simulation.set(player, Setting(slice_us=20_000))
    simulation.run_until(SECOND)
    assert simulation.switches() in range(48, 54)


@pytest.mark.parametrize(("setting", "weight"), [(Setting(nice=19), 15), (Setting(nice=5), 335), (IDLE, 3)])
def test_weights_share_the_cpu(setting: Setting, weight: int) -> None:
    simulation = Simulation(hogs(2), 1, EXACT)
    simulation.set(1, setting)
    simulation.run_until(60 * SECOND)
    assert shares(simulation)[1] == pytest.approx(weight / (1024 + weight), rel=0.05)


def test_a_request_alone_is_served_first_come_first_served_without_loss() -> None:
    busy = Activity(Doing.SERVE, work_us=800, gap_us=1000, slo_us=2000)
    played = mix(Player("a", (busy,)), seconds=5.0)
    simulation = Simulation(played, 3, EXACT)
    simulation.run_until(5 * SECOND)
    arrivals, done = simulation.answers(0)
    assert np.array_equal(arrivals, arrivals_ns(played, played.players[0], 3))
    expected, free = [], 0
    for arrival in arrivals.tolist():
        free = max(free, arrival) + 800_000
        expected.append(free if free < 5 * SECOND else -1)
    assert done.tolist() == expected
    assert simulation.pressure_ns() == 0


def test_every_player_answers_its_own_requests() -> None:
    slow = Activity(Doing.SERVE, work_us=700, gap_us=20_000, slo_us=2000)
    simulation = Simulation(mix(Player("a", (RARE,)), Player("b", (slow,)), Player("c", (RARE,)), cpus=3), 1, EXACT)
    simulation.run_until(10 * SECOND)
    for player, work in ((0, 500_000), (1, 700_000), (2, 500_000)):
        arrivals, done = simulation.answers(player)
        alone = np.diff(arrivals, prepend=-SECOND) > 3_000_000
        assert len(arrivals) > 300
        assert set((done - arrivals)[alone & (done >= 0)].tolist()) == {work}


def test_idle_tasks_give_way_at_once() -> None:
    simulation = Simulation(mix(Player("a", (RARE,)), Player("h", (HOG,))), 1, EXACT)
    simulation.set(1, IDLE)
    simulation.run_until(5 * SECOND)
    arrivals, done = simulation.answers(0)
    alone = np.diff(arrivals, prepend=-SECOND) > 1_000_000
    assert set((done - arrivals)[alone & (done >= 0)].tolist()) == {500_000}


def test_batch_tasks_preempt_nobody() -> None:
    simulation = Simulation(mix(Player("a", (RARE,)), Player("h", (HOG,))), 1, EXACT)
    simulation.set(0, Setting(SchedPolicy.BATCH))
    simulation.run_until(5 * SECOND)
    arrivals, done = simulation.answers(0)
    served = done >= 0
    began = (done - 500_000)[served]
    assert (began > arrivals[served]).mean() > 0.9


@pytest.mark.parametrize(("neighbour", "longest"), [(DEFAULT, 1_400_000), (Setting(slice_us=20_000), 20_000_000)])
def test_who_leaves_is_owed_no_more_than_the_longest_slice_in_the_queue_and_a_tick(
    neighbour: Setting, longest: int
) -> None:
    simulation = Simulation(hogs(2), 1, EXACT)
    simulation.set(1, neighbour)
    simulation.run_until(SECOND)
    world = simulation._world  # no counter tells it, and /proc does not either
    for far, owed in ((-SECOND, longest + TICK), (2 * SECOND, -longest - TICK)):
        world.e[0, at.V] += far
        note_lag(world, 0, 0)
        assert world.e[0, at.LAG] == owed


def test_a_running_task_that_is_told_another_setting_is_not_protected_anew() -> None:
    simulation = Simulation(hogs(2), 1, EXACT)
    simulation.run_until(SECOND)
    world = simulation._world
    simulation.run_until(int(world.g[at.TICK_AT]) + 100_000)  # it was picked a moment ago
    task = int(world.c[0, at.TASK])
    before = int(world.e[task, at.PROTECTED])
    simulation.set(task, Setting(slice_us=50_000))
    assert world.c[0, at.TASK] == task
    assert world.e[task, at.PROTECTED] == before


def test_a_sleeper_finds_an_empty_cpu_but_does_not_search_for_one_with_idle_tasks() -> None:
    busy, idle_hog = Player("b", (HOG,)), Player("i", (HOG,))
    for others, expected in (((busy,), 1), ((busy, idle_hog), 0)):
        simulation = Simulation(mix(Player("a", (RARE,)), *others, cpus=2), 1, EXACT)
        if len(others) > 1:
            simulation.set(2, IDLE)
        simulation.run_until(SECOND)
        world = simulation._world
        world.e[:, at.CPU] = np.array([0, 0, 1])[: len(world.e)]  # the sleeper was last where the busy one is
        world.c[:, at.TASK] = np.array([1, 2 if len(others) > 1 else -1])
        world.e[0, at.AWAKE] = world.e[0, at.QUEUED] = 0
        assert place_wake(world, 0, -1) == expected


def test_short_sleeps_gain_nothing() -> None:
    nap = Activity(Doing.CYCLE, work_us=3_000, gap_us=20, periodic=True)
    plain = {"base_slice_ns": 700_000, "switch_cost_ns": 0, "tick_jitter_ns": 0}
    fair = Simulation(mix(Player("naps", (nap,)), *hogs(2).players), 1, Rules(**plain))
    fair.run_until(20 * SECOND)
    # Without lag and delay every nap wipes out what it owes.
    free = Simulation(fair.mix, 1, Rules(**plain, delay_dequeue=False, place_lag=False))
    free.run_until(20 * SECOND)
    assert shares(fair)[0] == pytest.approx(1 / 3, abs=0.01)
    assert shares(free)[0] > 0.5


def test_a_reservation_gets_its_share_and_no_more() -> None:
    for budget, period in ((1000, 4000), (1000, 2000), (300, 10_000)):
        simulation = Simulation(hogs(3), 1, EXACT)
        simulation.set(0, Setting(SchedPolicy.DEADLINE, runtime_us=budget, period_us=period))
        simulation.run_until(20 * SECOND)
        assert shares(simulation)[0] == pytest.approx(budget / period, abs=0.002)
        assert shares(simulation)[1] == pytest.approx(shares(simulation)[2], abs=0.002)


def test_a_reservation_that_suffices_meets_its_deadlines_beside_hogs() -> None:
    clock = Activity(Doing.SERVE, work_us=500, gap_us=4000, periodic=True, slo_us=2000)
    simulation = Simulation(mix(Player("a", (clock,)), *hogs(3).players), 1, EXACT)
    simulation.set(0, Setting(SchedPolicy.DEADLINE, runtime_us=1000, period_us=2000))
    simulation.run_until(5 * SECOND)
    arrivals, done = simulation.answers(0)
    assert set((done - arrivals)[done >= 0].tolist()) == {500_000}


def test_reservations_beyond_95_percent_are_refused_and_change_nothing() -> None:
    simulation = Simulation(hogs(4, cpus=2), 1)
    half = Setting(SchedPolicy.DEADLINE, runtime_us=1000, period_us=2000)
    for player in range(3):
        simulation.set(player, half)
    with pytest.raises(OptionError, match="admits 95 %"):
        simulation.set(3, half)
    simulation.set(0, DEFAULT)
    simulation.set(3, half)
    simulation.run_until(10 * SECOND)
    assert shares(simulation)[1:] == pytest.approx([0.5] * 3, abs=0.01)
    assert shares(simulation)[0] > 0.4


def test_fifo_leaves_others_what_the_kernel_keeps_for_them() -> None:
    simulation = Simulation(hogs(2), 1, EXACT)
    simulation.set(0, Setting(SchedPolicy.FIFO, rt_priority=1))
    simulation.run_until(20 * SECOND)
    assert shares(simulation)[1] == pytest.approx(0.05, abs=0.01)


def test_sessions_share_equally_whatever_nice_says_inside() -> None:
    played = mix(Player("a", (HOG,), session=7), *(Player(f"b{n}", (HOG,), session=9) for n in range(3)))
    simulation = Simulation(played, 1, EXACT)
    simulation.set(0, Setting(nice=19))
    simulation.set(1, Setting(nice=-10))
    simulation.run_until(20 * SECOND)
    assert shares(simulation)[0] == pytest.approx(0.5, abs=0.005)
    assert shares(simulation)[1] / shares(simulation)[2] == pytest.approx(9548 / 1024, rel=0.05)
    flat = Simulation(played, 1, Rules(autogroup=False))
    flat.run_until(20 * SECOND)
    assert shares(flat) == pytest.approx([0.25] * 4, abs=0.005)


def test_nice_of_a_session_counts_against_other_sessions() -> None:
    simulation = Simulation(mix(Player("a", (HOG,), session=1), Player("b", (HOG,), session=2)), 1, EXACT)
    simulation.set_group(2, 5)
    simulation.run_until(20 * SECOND)
    assert shares(simulation)[1] == pytest.approx(335 / 1359, rel=0.02)
    simulation.set_group(2, 0)
    before = simulation.counters()[:, 0]
    simulation.run_until(40 * SECOND)
    gained = simulation.counters()[:, 0] - before
    assert gained[0] == pytest.approx(gained[1], rel=0.02)


def test_three_hogs_take_turns_on_two_cpus() -> None:
    simulation = Simulation(hogs(3, cpus=2), 1, EXACT)
    simulation.run_until(30 * SECOND)
    assert sum(shares(simulation)) == pytest.approx(2.0, abs=0.01)
    assert shares(simulation) == pytest.approx([2 / 3] * 3, abs=0.1)


def test_who_wakes_takes_the_idle_cpu() -> None:
    simulation = Simulation(mix(Player("h", (HOG,)), Player("a", (RARE,)), cpus=2), 1, EXACT)
    simulation.run_until(10 * SECOND)
    arrivals, done = simulation.answers(1)
    alone = np.diff(arrivals, prepend=-SECOND) > 1_000_000
    assert set((done - arrivals)[alone & (done >= 0)].tolist()) == {500_000}


def test_a_pair_hands_its_byte_to_and_fro() -> None:
    talk = Activity(Doing.PIPE, work_us=30)
    simulation = Simulation(mix(Player("p", (talk,), peer="q"), Player("q", (talk,), peer="p")), 1, EXACT)
    simulation.run_until(SECOND)
    one, other = simulation.progress(0), simulation.progress(1)
    assert abs(one - other) <= 1
    assert one + other == pytest.approx(1e9 / (30_000 + CALL_NS + TALK_NS), rel=0.01)


def test_a_role_that_ends_drops_its_backlog_and_finishes_what_it_works_on() -> None:
    flood = Activity(Doing.SERVE, work_us=1000, gap_us=500, periodic=True, slo_us=2000)
    played = Mix("swap", (100_000, 100_000, 100_000), (Player("a", (flood, REST, flood)),))
    simulation = Simulation(played, 1, EXACT)
    simulation.run_until(2 * SECOND)
    arrivals, done = simulation.answers(0)
    first = arrivals < 100_000_000
    assert (done[first] >= 0).sum() in (100, 101)
    assert done[first].max() < 101_000_000
    late = arrivals >= 200_000_000
    assert done[late][0] - arrivals[late][0] == 1_000_000
    assert simulation.runnable() == 0


def test_a_scan_loses_its_cache_to_others_only() -> None:
    scan = Activity(Doing.SCAN)
    costly = Rules(switch_cost_ns=0, cache_refill_ns=100_000, tick_jitter_ns=0)
    alone = Simulation(mix(Player("s", (scan,))), 1, costly)
    alone.run_until(SECOND)
    assert SECOND - alone.progress(0) < 200_000
    pair = Simulation(mix(Player("s", (scan,)), Player("h", (HOG,))), 1, costly)
    pair.run_until(SECOND)
    lost = SECOND - pair.progress(0) - pair.progress(1)
    assert lost == pytest.approx(100_000 * pair.switches() / 2, rel=0.02)


def test_waits_are_booked_when_the_task_runs_next_and_pressure_meanwhile() -> None:
    simulation = Simulation(hogs(2), 1, EXACT)
    simulation.run_until(10 * SECOND)
    counters = simulation.counters()
    assert simulation.pressure_ns() == pytest.approx(10 * SECOND, abs=TICK)
    assert counters[:, :2].sum(axis=1) == pytest.approx(10 * SECOND, abs=2 * TICK)
    assert counters[:, 4].tolist() == pytest.approx(counters[:, 2].tolist(), abs=1)


def test_a_copy_has_the_same_future_and_a_life_of_its_own() -> None:
    simulation = Simulation(mix(Player("a", (RARE,)), *hogs(3).players, cpus=2), 1)
    simulation.run_until(SECOND)
    twin, other = simulation.copy(), simulation.copy()
    other.set(1, Setting(nice=19))
    for each in (simulation, twin, other):
        each.run_until(3 * SECOND)
    assert np.array_equal(simulation.counters(), twin.counters())
    assert np.array_equal(simulation.answers(0)[1], twin.answers(0)[1])
    assert not np.array_equal(simulation.counters(), other.counters())


def test_what_does_not_exist_is_refused() -> None:
    simulation = Simulation(hogs(1), 1)
    for wrong in (
        lambda: simulation.set(1, DEFAULT),
        lambda: simulation.set(-1, DEFAULT),
        lambda: simulation.answers(1),
        lambda: simulation.progress(1),
        lambda: simulation.set_group(1, 0),
        lambda: simulation.set_group(0, 20),
        lambda: simulation.set(0, Setting(SchedPolicy.EXT)),
    ):
        with pytest.raises(OptionError):
            wrong()


def test_cfs_gives_sleepers_credit_and_eevdf_does_not() -> None:
    played = mix(Player("a", (RARE,)), *hogs(3).players)
    late = {}
    for scheduler in ("eevdf", "cfs"):
        simulation = Simulation(played, 1, Rules(scheduler=scheduler))
        simulation.run_until(10 * SECOND)
        arrivals, done = simulation.answers(0)
        late[scheduler] = float(np.percentile((done - arrivals)[done >= 0], 80))
        assert simulation.counters()[1:, 0] == pytest.approx(simulation.counters()[1:, 0].mean(), rel=0.01)
    assert late["cfs"] == pytest.approx(500_000, abs=5_000)
    assert late["eevdf"] > late["cfs"]


_CODE = """
import hashlib, json, sys
sys.path.insert(0, {folder!r})
from test_eevdf_simulation import fingerprint
print(json.dumps([fingerprint(seed) for seed in range(4)]))
"""


def fingerprint(seed: int) -> str:
    """Of a mix with all that the core knows."""
    talk, nap = Activity(Doing.PIPE, work_us=30), Activity(Doing.CYCLE, work_us=900, gap_us=700)
    players = (
        Player("a", (RARE, HOG), session=1),
        Player("b", (HOG, RARE), session=2),
        Player("c", (nap, Activity(Doing.SCAN)), session=1),
        Player("p", (talk, REST), session=2, peer="q"),
        Player("q", (talk, REST), session=2, peer="p"),
    )
    played = Mix("all", (150_000, 100_000), players, 1 + seed % 2)
    simulation = Simulation(played, seed, Rules(scheduler="cfs" if seed == 3 else "eevdf"))
    simulation.run_until(40_000_000)
    simulation.set(2, Setting(SchedPolicy.DEADLINE, runtime_us=500, period_us=3000))
    simulation.set(3, IDLE)
    simulation.set_group(2, 3)
    simulation.run_until(250_000_000)
    found = hashlib.sha256(simulation.counters().tobytes())
    found.update(np.concatenate([simulation.answers(player)[1] for player in (0, 1)]).tobytes())
    return found.hexdigest()


@pytest.mark.slow
def test_plain_python_and_compiled_code_give_the_same_future() -> None:
    code = _CODE.format(folder=os.path.dirname(__file__))  # noqa: PTH120 - a string is wanted
    futures = []
    for disabled in ("0", "1"):
        environment = {**os.environ, "NUMBA_DISABLE_JIT": disabled}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        futures.append(json.loads(run.stdout))
    assert futures[0] == futures[1]
