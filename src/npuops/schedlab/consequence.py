"""What came of a choice within a window of simulated time: the labels that a scorer is trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npuops.eevdf.mix import Doing, Mix, Player
from npuops.schedlab.simulated_host import SimulatedHost
from npuops.schedlab.stage_hints import first_kept


@dataclass(frozen=True, slots=True, eq=False)
class Consequence:
    """Per player, over a window; each array is of shape (players).

    Attributes:
        due: int64, requests whose deadline (arrival and SLO) lay within.
        missed: int64, of these, those not answered by then.
        late_before: int64, requests that were late already when the window began, and still waited.
        late_after: int64, the same at its end.
        progress: int64, work done, in the player's own units: ns of CPU time, turns of a pipe.
        turns: how often the processors changed tasks.
    """

    due: NDArray[np.int64]
    missed: NDArray[np.int64]
    late_before: NDArray[np.int64]
    late_after: NDArray[np.int64]
    progress: NDArray[np.int64]
    turns: int

    @property
    def miss(self) -> NDArray[np.float64]:
        """As `miss_share`."""
        return miss_share(self.due, self.missed, self.late_before, self.late_after)


def miss_share(
    due: NDArray[np.int64], missed: NDArray[np.int64], late_before: NDArray[np.int64], late_after: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Share of requests that were or stay late, 0 to 1, of all that could be; 0 where there are none.

    What waits in a long queue is late whatever is done, and yet working it off is what ends the lateness: so a
    request that still waits at the end counts on top of the deadlines that passed.
    """
    found: NDArray[np.float64] = np.minimum((missed + late_after) / np.maximum(due + late_before, 1), 1.0)
    return found


class Watch:
    """Remembers where a host was, to tell afterwards what happened since."""

    def __init__(self, host: SimulatedHost) -> None:
        self._since_us = host.now_us
        self._progress = _progress(host)
        self._turns = host.simulation.switches()
        self._late = _late(host)

    def consequence(self, host: SimulatedHost) -> Consequence:
        """Of everything since this watch began, on that host or on a copy that was made of it then."""
        players = host.mix.players
        due, missed = np.zeros(len(players), np.int64), np.zeros(len(players), np.int64)
        for number, player in enumerate(players):
            if any(act.doing is Doing.SERVE for act in player.acts):
                answers = host.simulation.answers(number)
                due[number], missed[number] = deadlines(host.mix, player, *answers, (self._since_us, host.now_us))
        return Consequence(
            due=due,
            missed=missed,
            late_before=self._late,
            late_after=_late(host),
            progress=_progress(host) - self._progress,
            turns=host.simulation.switches() - self._turns,
        )


def deadlines(
    mix: Mix, player: Player, arrived: NDArray[np.int64], done: NDArray[np.int64], window_us: tuple[int, int]
) -> tuple[int, int]:
    """Requests of a player whose deadline lay within a window, and of these, those not answered by then.

    Args:
        mix: what is played.
        player: one of its players.
        arrived: ns since the mix began.
        done: likewise; below 0 for what was not answered.
        window_us: its beginning and its end, since the mix began.
    """
    starts_ns = np.array(mix.starts_us(), np.int64) * 1000
    phase = _phase(starts_ns, arrived)
    slo_ns = np.array([act.slo_us for act in player.acts], np.int64) * 1000
    deadline = arrived + slo_ns[phase]
    since_ns, now_ns = (1000 * at for at in window_us)
    # A request that its phase's end would drop anyway says nothing about any choice.
    counts = (deadline > since_ns) & (deadline <= now_ns) & (deadline <= starts_ns[phase + 1])
    late = (done < 0) | (done > deadline)
    return int(counts.sum()), int((counts & late).sum())


def late_waiting(
    mix: Mix, player: Player, arrived: NDArray[np.int64], done: NDArray[np.int64], phase: int, at_us: int
) -> int:
    """Requests of a player that serves in this phase that wait beyond their deadline.

    Args:
        mix: what is played.
        player: one of its players.
        arrived: ns since the mix began.
        done: likewise; below 0 for what was not answered. An answer of later is none yet.
        phase: of the moment.
        at_us: the moment, since the mix began.
    """
    starts_ns = np.array(mix.starts_us(), np.int64) * 1000
    begun = _phase(starts_ns, arrived)
    slo_ns = np.array([act.slo_us for act in player.acts], np.int64)[begun] * 1000
    unanswered = (done < 0) | (done > at_us * 1000)
    return int((unanswered & (begun >= first_kept(player, phase)) & (arrived + slo_ns <= at_us * 1000)).sum())


def _phase(starts_ns: NDArray[np.int64], at_ns: NDArray[np.int64]) -> NDArray[np.intp]:
    return np.clip(np.searchsorted(starts_ns, at_ns, side="right") - 1, 0, len(starts_ns) - 2)


def _late(host: SimulatedHost) -> NDArray[np.int64]:
    """Requests of each player that wait beyond their deadline."""
    found = np.zeros(len(host.mix.players), np.int64)
    for number, player in enumerate(host.mix.players):
        if player.acts[host.phase].doing is Doing.SERVE:
            found[number] = late_waiting(host.mix, player, *host.simulation.answers(number), host.phase, host.now_us)
    return found


def _progress(host: SimulatedHost) -> NDArray[np.int64]:
    return np.array([host.simulation.progress(number) for number in range(len(host.mix.players))], np.int64)
