"""What holds in the simulated kernel at every instant, whatever the mix and whatever is set."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npuops.eevdf import world as at
from npuops.eevdf.mix import REST, Activity, Doing, Mix, Player
from npuops.eevdf.rules import Rules
from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.eevdf.simulation import Simulation
from npuops.errors import OptionError

SPAN_NS = 300_000_000
LENIENT = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

ACTS = st.one_of(
    st.just(REST),
    st.just(Activity(Doing.COMPUTE)),
    st.just(Activity(Doing.SCAN)),
    st.builds(
        Activity,
        st.sampled_from([Doing.SERVE, Doing.CYCLE]),
        work_us=st.integers(1, 5000),
        gap_us=st.integers(50, 20_000),
        periodic=st.booleans(),
        slo_us=st.just(2000),
    ),
)
TALK = Activity(Doing.PIPE, work_us=30)
SETTINGS = st.one_of(
    st.builds(
        Setting,
        st.sampled_from([SchedPolicy.OTHER, SchedPolicy.BATCH, SchedPolicy.IDLE]),
        nice=st.integers(-20, 19),
        slice_us=st.one_of(st.none(), st.integers(100, 100_000)),
    ),
    st.builds(
        lambda runtime, more: Setting(SchedPolicy.DEADLINE, runtime_us=runtime, period_us=runtime + more),
        st.integers(100, 3000),
        st.integers(0, 20_000),
    ),
    st.just(Setting(SchedPolicy.FIFO, rt_priority=1)),
)


@st.composite
def mixes(draw: st.DrawFn) -> Mix:
    number = draw(st.integers(1, 6))
    players = [Player(f"t{n}", draw(st.tuples(ACTS, ACTS)), session=draw(st.integers(0, 2))) for n in range(number)]
    if draw(st.booleans()):
        players += [Player("p", (TALK, REST), peer="q"), Player("q", (TALK, REST), session=1, peer="p")]
    return Mix("random", (100_000, 200_000), tuple(players), draw(st.integers(1, 4)))


ORDERS = st.lists(st.tuples(st.integers(1, 60_000_000), st.integers(0, 7), SETTINGS, st.integers(-20, 19)), max_size=8)
RULES = st.builds(
    Rules,
    scheduler=st.sampled_from(["eevdf", "eevdf", "cfs"]),
    hz=st.sampled_from([100, 250, 1000]),
    run_to_parity=st.booleans(),
    delay_dequeue=st.booleans(),
    place_lag=st.booleans(),
    autogroup=st.booleans(),
)


def order(simulation: Simulation, player: int, setting: Setting, nice: int) -> None:
    players = simulation.mix.players
    try:
        simulation.set(player % len(players), setting)
    except OptionError:
        assert setting.share
    simulation.set_group(players[player % len(players)].session, nice)


def check_queues(simulation: Simulation) -> None:
    """Every fair task that wants a CPU is in one queue, once; every CPU with work works."""
    w = simulation._world
    tasks = len(simulation.mix.players)
    members = [row[at.MEMBERS : at.MEMBERS + row[at.NUMBER]].tolist() for row in w.q]
    everyone = [entity for row in members for entity in row]
    assert len(set(everyone)) == len(everyone)
    for entity, row in enumerate(w.e):
        assert (entity in everyone) == bool(row[at.QUEUED])
        if row[at.QUEUED]:
            assert entity in members[row[at.QUEUE]]
        assert abs(row[at.LAG]) < 1 << 50
        fair = entity < tasks and row[at.POLICY] in (0, 3, 5)
        if fair:
            assert bool(row[at.QUEUED]) == bool(row[at.AWAKE] or row[at.DELAYED])
    for group in range(tasks, len(w.e)):
        assert w.e[group, at.QUEUED] == bool(members[w.e[group, at.BELOW]]) or w.e[group, at.DELAYED]
    for cpu, row in enumerate(w.c):
        task = row[at.TASK]
        if task >= 0:
            assert w.e[task, at.AWAKE]
            assert w.e[task, at.CPU] == cpu
        else:
            here = w.e[:tasks, at.CPU] == cpu
            assert not (here & (w.e[:tasks, at.AWAKE] == 1) & (w.e[:tasks, at.QUEUED] == 1)).any()
    for number, row in enumerate(w.q):
        assert row[at.CURRENT] == -1 or row[at.CURRENT] in members[number]


@LENIENT
@given(mixes(), RULES, ORDERS, st.integers(0, 99))
def test_no_task_is_lost_and_time_is_conserved(mix: Mix, rules: Rules, orders: list, seed: int) -> None:
    simulation = Simulation(mix, seed, rules)
    before = simulation.counters()
    pressure = 0
    for gap, player, setting, nice in [*orders, (SPAN_NS, 0, Setting(), 0)]:
        simulation.run_until(min(simulation.now_ns + gap, SPAN_NS - 1))
        check_queues(simulation)
        order(simulation, player, setting, nice)
        check_queues(simulation)
        after = simulation.counters()
        assert (after >= before).all()
        assert pressure <= simulation.pressure_ns() <= simulation.now_ns
        assert after[:, 0].sum() <= simulation.now_ns * mix.cpus
        assert (after[:, 0] + after[:, 1] <= simulation.now_ns).all()
        assert (after[:, 3] + after[:, 4] - after[:, 2] <= 0).all()
        before, pressure = after, simulation.pressure_ns()
    for player in range(len(mix.players)):
        arrivals, done = simulation.answers(player)
        served = done >= 0
        works = [act.work_us * 1000 for act in mix.players[player].acts if act.doing is Doing.SERVE]
        assert (done[served] - arrivals[served] >= min(works, default=0)).all()
        assert (np.diff(done[served]) > 0).all()
        ends = np.flatnonzero(np.diff(served.astype(int)) == 1)
        assert len(ends) <= 2, "requests are served in order; only the end of a role drops some"


@LENIENT
@given(mixes(), RULES, ORDERS, st.integers(0, 99))
def test_pieces_copies_and_seeds_give_the_same_future(mix: Mix, rules: Rules, orders: list, seed: int) -> None:
    whole, pieces = Simulation(mix, seed, rules), Simulation(mix, seed, rules)
    moment = 0
    for gap, player, setting, nice in orders:
        whole.run_until(moment + gap)
        for part in (gap // 3, gap // 2, gap):
            pieces.run_until(moment + part)
        moment += gap
        pieces = pieces.copy()
        order(whole, player, setting, nice)
        order(pieces, player, setting, nice)
    whole.run_until(moment + SPAN_NS)
    pieces.run_until(moment + SPAN_NS)
    for one, other in zip(whole._world, pieces._world, strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(whole._script.done, pieces._script.done)


@LENIENT
@given(mixes(), st.integers(0, 99))
def test_no_cpu_idles_for_long_beside_a_task_that_waits(mix: Mix, seed: int) -> None:
    simulation = Simulation(mix, seed)
    waits = 0
    for step in range(1, 50):
        simulation.run_until(step * 6_000_000)
        idle = mix.cpus - min(simulation.runnable(), mix.cpus)
        busy = int((simulation._world.c[:, at.TASK] >= 0).sum())
        waits = waits + 1 if busy < mix.cpus - idle else 0
        assert waits < 8
