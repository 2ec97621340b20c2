"""How much faster than real time the simulator runs the four-phase mix of the fact sheet, on one core.

    python benchmarks/hostsched/simulator_speed.py [--repeats 5]

CPU time of this process, so that a loud machine disturbs it less. Goal: at least 200 times real time on one CPU.
"""

from __future__ import annotations

import argparse
import statistics
import time

from npuops.eevdf.compiled import outlook
from npuops.eevdf.mix import REST, Activity, Doing, Mix, Player
from npuops.eevdf.simulation import Simulation

INT = Activity(Doing.SERVE, work_us=500, gap_us=4000, slo_us=2000)
BURST = Activity(Doing.SERVE, work_us=500, gap_us=1100, periodic=True, slo_us=2000)
BULK, HOG, PIPE = Activity(Doing.COMPUTE), Activity(Doing.SCAN), Activity(Doing.PIPE, work_us=30)


def four_phases(cpus: int, hogs: int, *, sessions: bool) -> Mix:
    acts = [("a", INT, BULK, REST, BURST), ("b", BULK, INT, REST, REST), *((f"h{n}", *[HOG] * 4) for n in range(hogs))]
    acts += [("p0", REST, REST, REST, PIPE), ("p1", REST, REST, REST, PIPE)]
    peers = {"p0": "p1", "p1": "p0"}
    players = tuple(
        Player(name, tuple(each), session=number if sessions else 0, peer=peers.get(name, ""))
        for number, (name, *each) in enumerate(acts)
    )
    return Mix("four phases", (2_500_000,) * 4, players, cpus)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if (told := outlook()) is not None:
        print(told)
    for cpus, hogs, sessions in ((1, 2, False), (1, 2, True), (2, 4, False), (2, 4, True), (4, 8, False)):
        mix = four_phases(cpus, hogs, sessions=sessions)
        Simulation(mix, 0).run_until(1_000_000)
        speeds = []
        for seed in range(options.repeats):
            simulation = Simulation(mix, seed)
            began = time.process_time_ns()
            simulation.run_until(mix.duration_us * 1000)
            speeds.append(simulation.now_ns / (time.process_time_ns() - began))
        began = time.process_time_ns()
        for _ in range(1000):
            simulation.copy()
        copy_us = (time.process_time_ns() - began) / 1e6
        words = f"{cpus} CPUs, {len(mix.players)} tasks, {'a session each' if sessions else 'one session'}"
        print(f"{words:38} {statistics.median(speeds):7.0f} x real time   copy {copy_us:.1f} us")


if __name__ == "__main__":
    main()
