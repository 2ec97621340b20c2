"""Tasks that follow a written part."""

from itertools import pairwise

import numpy as np
import pytest

from npuops.eevdf import world as at
from npuops.eevdf.mix import REST, Mix, Player
from npuops.eevdf.parts import Parts
from npuops.eevdf.rules import Rules
from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.eevdf.simulation import Simulation
from npuops.errors import OptionError

EXACT = Rules(switch_cost_ns=0, cache_refill_ns=0, tick_jitter_ns=0)
MS = 1_000_000


def table(*lines: tuple[int, int, int]) -> np.ndarray:
    return np.array(lines, np.int64)


def simulation(*lines: np.ndarray, cpus: int = 1, pinned: dict[int, int] | None = None) -> Simulation:
    mix = Mix("parts", (100_000,), tuple(Player(f"t{number}", (REST,)) for number in range(len(lines))), cpus)
    return Simulation(mix, 0, EXACT, Parts(lines, pinned or {}, 3 * MS))


def test_a_task_works_and_sleeps_as_its_part_says() -> None:
    part = table((0, at.UNTIL, 5 * MS), (2 * MS, at.SPAN, 3 * MS), (MS, at.UNTIL, 11 * MS), (MS, at.UNTIL, 20 * MS))
    one = simulation(np.concatenate([part, table((4 * MS, at.EXIT, 0))]))
    moments = []
    while (moment := one.next_ns()) < 90 * MS:
        one.run_until(moment)
        moments.append((moment, int(one.running()[0])))
    runs = [(now[0] // MS, now[1]) for was, now in pairwise(moments) if was[1] != now[1]]
    # Its third line's moment is over as it gets there: that is no sleep, as with a backlog.
    assert runs == [(5, 0), (7, -1), (10, 0), (12, -1), (20, 0), (24, -1)]


def test_who_waits_for_a_call_goes_on_after_it_and_an_early_call_is_kept() -> None:
    caller = table((0, at.UNTIL, MS), (MS, at.WAKE, 1), (MS, at.UNTIL, 10 * MS), (MS, at.WAKE, 1), (0, at.EXIT, 0))
    called = table((0, at.UNTIL, 4 * MS), (MS, at.CALL, 0), (MS, at.CALL, 0), (MS, at.EXIT, 0))
    pair = simulation(caller, called)
    pair.run_until(8 * MS)
    assert pair.counters()[:, 0].tolist() == [2 * MS, 2 * MS], "the first call came before it waited"
    pair.run_until(90 * MS)
    assert pair.counters()[:, 0].tolist() == [3 * MS, 3 * MS]
    assert not pair.awake().any()


def test_who_takes_a_cpu_away_takes_that_one() -> None:
    taken = table((0, at.UNTIL, 10 * MS), (20 * MS, at.EXIT, 0))
    endless = table((0, at.UNTIL, 0), (at.NEVER, at.EXIT, 0))
    world = simulation(endless, endless, taken, cpus=2, pinned={2: 1})
    world.set(2, Setting(SchedPolicy.FIFO, rt_priority=99))
    world.run_until(15 * MS)
    assert world.running()[1] == 2
    assert world.running()[0] in (0, 1)
    world.run_until(31 * MS)
    assert set(world.running().tolist()) == {0, 1}


@pytest.mark.parametrize(
    "lines",
    [
        table((0, at.UNTIL, 0)),
        table((5, at.UNTIL, 0), (0, at.EXIT, 0)),
        table((0, at.UNTIL, 0), (1, at.WAKE, 9), (0, at.EXIT, 0)),
        table((0, at.UNTIL, 0), (-1, at.SPAN, 1), (0, at.EXIT, 0)),
        table((0, at.UNTIL, 0), (1, 77, 1), (0, at.EXIT, 0)),
        np.zeros((0, 3), np.int64),
        np.zeros((2, 2), np.int64),
    ],
)
def test_a_part_that_nobody_could_follow_is_refused(lines: np.ndarray) -> None:
    with pytest.raises(OptionError):
        simulation(lines)


def test_parts_of_other_players_or_for_cpus_that_are_not_there_are_refused() -> None:
    rest = table((0, at.UNTIL, 0), (0, at.EXIT, 0))
    mix = Mix("one", (1000,), (Player("a", (REST,)),))
    for wrong in (Parts([]), Parts([rest], {0: 3}), Parts([rest], {}, 10**9)):
        with pytest.raises(OptionError):
            Simulation(mix, 0, EXACT, wrong)
