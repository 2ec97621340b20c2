"""A mix in the simulator, looked at and set as the agent looks at and sets a real host.

The same policies, guard and orders run on both: what is learned here is what acts there.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np

from npuops.eevdf.mix import Activity, Doing, Mix
from npuops.eevdf.rules import Rules
from npuops.eevdf.setting import DEFAULT, Setting
from npuops.eevdf.simulation import Simulation
from npuops.errors import OptionError
from npuops.hostsched.frame import Frame, GroupId, Host, Task, TaskId
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.plan import Orders

FIRST_TID: Final = 1000
_KINDS: Final = {
    Doing.SERVE: Kind.LATENCY,
    Doing.PIPE: Kind.BACKGROUND,
    Doing.COMPUTE: Kind.BATCH,
    Doing.SCAN: Kind.BATCH,
    Doing.CYCLE: Kind.BATCH,
}


class SimulatedHost:
    """Plays one mix; tells as much as a real host would, and no more."""

    def __init__(self, mix: Mix, seed: int, rules: Rules, *, telling: Collection[str] = ()) -> None:
        """Begin at the mix's first instant, everything as the kernel sets it.

        Args:
            mix: who does what.
            seed: of its arrivals.
            rules: of the simulated kernel.
            telling: players that send hints.
        """
        self.mix = mix
        self._telling = frozenset(telling)
        self._simulation = Simulation(mix, seed, rules)
        self._settings = [DEFAULT] * len(mix.players)
        self._nices = {player.session: 0 for player in mix.players}
        self._tasks = tuple(
            Task(
                id=TaskId(FIRST_TID + number, 1),
                pid=FIRST_TID + number,
                command=player.name,
                group=GroupId("autogroup", str(player.session)),
                cpus=mix.cpus,
            )
            for number, player in enumerate(mix.players)
        )
        self._starts_us = mix.starts_us()
        self.refused = 0

    @property
    def simulation(self) -> Simulation:
        """What it runs on."""
        return self._simulation

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The players, in the order of the mix."""
        return self._tasks

    @property
    def now_us(self) -> int:
        """Since the mix began."""
        return self._simulation.now_ns // 1000

    def run_until(self, moment_us: int) -> None:
        """Let the host run."""
        self._simulation.run_until(moment_us * 1000)

    def copy(self) -> SimulatedHost:
        """Another one in the same state: what is done to it is not done to this one, and it meets the same arrivals."""
        other = object.__new__(SimulatedHost)
        other.mix, other._telling, other._tasks = self.mix, self._telling, self._tasks
        other._starts_us = self._starts_us
        other._simulation = self._simulation.copy()
        other._settings = list(self._settings)
        other._nices = dict(self._nices)
        other.refused = self.refused
        return other

    def apply(self, orders: Orders) -> None:
        """Set what differs. A reservation that the kernel would not admit is counted in `refused` and left out."""
        known = {task.id: number for number, task in enumerate(self._tasks)}
        wanted = [(known[task], setting or DEFAULT) for task, setting in orders.tasks.items() if task in known]
        # What is given back comes first: a reservation may need what another one had.
        for number, setting in sorted(wanted, key=lambda each: each[1].share > 0):
            if setting != self._settings[number]:
                self._set(number, setting)
        for group, nice in orders.groups.items():
            session = int(group.name)
            if self._nices.get(session) != (nice or 0):
                self._nices[session] = nice or 0
                self._simulation.set_group(session, nice or 0)

    def _set(self, number: int, setting: Setting) -> None:
        try:
            self._simulation.set(number, setting)
        except OptionError:
            self.refused += 1
            return
        self._settings[number] = setting

    def acts(self) -> list[Activity]:
        """What each player does now."""
        phase = int(np.searchsorted(self._starts_us, self.now_us, side="right")) - 1
        return [player.acts[min(phase, len(player.acts) - 1)] for player in self.mix.players]

    def frame(self) -> Frame:
        """One look, now."""
        simulation, now_us = self._simulation, self.now_us
        counters = simulation.counters()
        return Frame(
            at_us=now_us,
            tasks=self._tasks,
            counters=counters,
            settings=tuple(self._settings),
            hints=tuple(self._hints()) if self._telling else (None,) * len(self._tasks),
            group_nices={GroupId("autogroup", str(session)): nice for session, nice in self._nices.items()},
            host=Host(
                cpus=self.mix.cpus,
                runnable=simulation.runnable(),
                busy_us=int(counters[:, 0].sum()) // 1000,
                steal_us=0,
                pressure_us=simulation.pressure_ns() // 1000,
            ),
        )

    def _hints(self) -> list[Hint | None]:
        return [
            self._hint(number, act) if player.name in self._telling else None
            for number, (player, act) in enumerate(zip(self.mix.players, self.acts(), strict=True))
        ]

    def _hint(self, number: int, act: Activity) -> Hint | None:
        kind = _KINDS.get(act.doing)
        if kind is None:
            return None
        now_us = self.now_us
        if act.doing is not Doing.SERVE:
            return Hint(at_us=now_us, kind=kind)
        arrived, done = self._simulation.answers(number)
        began_us = max(start for start in self._starts_us if start <= now_us)  # an earlier phase's backlog was dropped
        waiting = arrived[(done < 0) & (arrived >= began_us * 1000)]
        served = int((done >= 0).sum())
        missed = int((done[done >= 0] - arrived[done >= 0] > act.slo_us * 1000).sum())
        slack_us = None if not waiting.size else int(waiting[0]) // 1000 + act.slo_us - now_us
        return Hint(
            at_us=now_us,
            kind=kind,
            slo_us=act.slo_us,
            slack_us=slack_us,
            queued=int(waiting.size),
            served=served,
            missed=missed,
        )
