"""Waits of simulated tasks as the agent's signals tell those of real ones (`hostsched.task_counters`).

The kernel books a wait when the task runs next. Once a task stood still for a while and wants to run, its wait grows
with the clock, until it runs and the kernel's own figure takes over.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.eevdf.simulation import Simulation
from npuops.hostsched.frame import WAIT_NS
from npuops.hostsched.task_counters import STATE_US

_NOT: Final = -1


class LiveWaits:
    """Of all players of a simulation; one look after the other."""

    def __init__(self, players: int) -> None:
        """Nothing was looked at yet."""
        self._raw = np.full((players, 5), _NOT, np.int64)
        self._told = np.zeros(players, np.int64)
        self._asked_us = np.zeros(players, np.int64)
        self._since_us = np.full(players, _NOT, np.int64)

    def copy(self) -> LiveWaits:
        """For a copy of the simulation."""
        other = LiveWaits(len(self._told))
        for name in ("_raw", "_told", "_asked_us", "_since_us"):
            getattr(other, name)[:] = getattr(self, name)
        return other

    def told(self, simulation: Simulation, now_us: int) -> NDArray[np.int64]:
        """The counters at this look: int64 of shape (players, 5)."""
        counters = simulation.counters().copy()
        moved = (counters != self._raw).any(axis=1)
        self._raw[:] = counters
        self._asked_us[moved], self._since_us[moved] = now_us, _NOT
        grown = self._since_us != _NOT
        longer = counters[:, WAIT_NS] + (now_us - self._since_us) * 1000 * grown
        self._told = np.maximum(longer, self._told)
        due = ~moved & ~grown & (now_us - self._asked_us >= STATE_US)
        self._asked_us[due] = now_us
        self._since_us[due & simulation.waiting()] = now_us
        counters[:, WAIT_NS] = self._told
        return counters
