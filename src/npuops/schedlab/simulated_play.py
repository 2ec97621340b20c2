"""A mix played in the simulator and written down as a play on the kernel is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from npuops.eevdf.mix import Doing, Mix
from npuops.eevdf.rules import Rules
from npuops.eevdf.simulation import Simulation
from npuops.hostsched.frame import INVOLUNTARY, RUN_NS, VOLUNTARY
from npuops.schedlab.recording import Origin, Record, Recording
from npuops.schedlab.schedule_file import BIN_US


class PhaseBook:
    """Takes the figures of a simulation at the end of each phase.

    Let the simulation run by `run_until` of this book: it stops at the end of each phase on its way.
    """

    def __init__(self, mix: Mix, seed: int) -> None:
        self._mix = mix
        self._seed = seed
        self._edges_ns = [start * 1000 for start in mix.starts_us()[1:]]
        self._counters: list[NDArray[np.int64]] = [np.zeros((len(mix.players), 5), np.int64)]
        self._progress: list[NDArray[np.int64]] = [np.zeros(len(mix.players), np.int64)]

    def run_until(self, simulation: Simulation, moment_ns: int) -> None:
        """Let it run to this moment, and note what is to be noted."""
        for edge in self._edges_ns[len(self._counters) - 1 :]:
            if edge > moment_ns:
                break
            simulation.run_until(edge)
            self._counters.append(simulation.counters())
            found = [simulation.progress(number) for number in range(len(self._mix.players))]
            self._progress.append(np.array(found, np.int64))
        simulation.run_until(moment_ns)

    def recording(self, simulation: Simulation) -> Recording:
        """Let the mix come to its end, and give the whole of it."""
        self.run_until(simulation, self._edges_ns[-1])
        counters = np.diff(np.array(self._counters), axis=0)
        progress = np.diff(np.array(self._progress), axis=0)
        records = []
        for number, player in enumerate(self._mix.players):
            units = np.array([1.0 if act.doing is Doing.PIPE else 1000.0 for act in player.acts])
            columns = [counters[:, number, column] for column in (RUN_NS, VOLUNTARY, INVOLUNTARY)]
            records.append(
                Record(player.name, *simulation.answers(number), np.maximum(0, progress[:, number]) / units, *columns)
            )
        timeline = np.zeros((len(records), 0))
        return Recording(self._mix, self._seed, Origin.SIMULATOR, tuple(records), None, BIN_US, timeline)


def play_simulated(
    mix: Mix, seed: int, rules: Rules | None = None, on_phase: Callable[[Simulation, int], object] | None = None
) -> Recording:
    """Play `mix` to its end; `on_phase` may set what it likes at the start of each phase, the first included."""
    simulation, book = Simulation(mix, seed, rules), PhaseBook(mix, seed)
    for phase, start_us in enumerate(mix.starts_us()[:-1]):
        book.run_until(simulation, start_us * 1000)
        if on_phase is not None:
            on_phase(simulation, phase)
    return book.recording(simulation)
