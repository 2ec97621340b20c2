"""A mix in the simulator, looked at and set as the agent looks at and sets a real host.

The same policies, guard and orders run on both: what is learned here is what acts there.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np

from npuops.eevdf.mix import Activity, Mix
from npuops.eevdf.rules import Rules
from npuops.eevdf.setting import DEFAULT, Setting
from npuops.eevdf.simulation import Simulation
from npuops.errors import OptionError
from npuops.hostsched.frame import INVOLUNTARY, RUN_NS, TURNS, Frame, GroupId, Host, Task, TaskId
from npuops.hostsched.hint import Hint
from npuops.hostsched.plan import Orders
from npuops.schedlab.live_waits import LiveWaits
from npuops.schedlab.others import NOBODY, Others
from npuops.schedlab.stage_hints import hint_of

FIRST_TID: Final = 1000
_BUSY_STEP_US: Final = 10_000
_BUSY_EVERY_US: Final = 50_000
"""The kernel tells busy time in hundredths of a second, and the agent reads it so often (`host_files`)."""


class SimulatedHost:
    """Plays one mix; tells as much as a real host would, and no more."""

    def __init__(
        self,
        mix: Mix,
        seed: int,
        rules: Rules,
        *,
        telling: Collection[str] = (),
        pinned: bool = False,
        others: Others = NOBODY,
    ) -> None:
        """Begin at the mix's first instant, everything as the kernel sets it.

        Args:
            mix: who does what.
            seed: of its arrivals.
            rules: of the simulated kernel.
            telling: players that send hints.
            pinned: the host has one CPU more, on which no player may run: the kernel reserves for none of them then.
            others: who else is on the host; they take no time from the mix.
        """
        self.mix = mix
        self._others = others.until(mix.duration_us)
        self._telling = frozenset(telling)
        self._cpus = mix.cpus + pinned
        self._waits = LiveWaits(len(mix.players))
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
        self._busy_us, self._busy_at_us = 0, -_BUSY_EVERY_US
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
        other._simulation = self._simulation.copy()
        other._cpus, other._waits, other._others = self._cpus, self._waits.copy(), self._others
        other._settings = list(self._settings)
        other._nices = dict(self._nices)
        other._busy_us, other._busy_at_us = self._busy_us, self._busy_at_us
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

    def until_change_us(self) -> int:
        """Until the next phase begins, or the mix ends; 0 at its end."""
        return min((start for start in self.mix.starts_us() if start > self.now_us), default=self.now_us) - self.now_us

    def acts(self) -> list[Activity]:
        """What each player does now."""
        return [player.acts[self.phase] for player in self.mix.players]

    @property
    def phase(self) -> int:
        """Of the mix, from 0; at its very end the last one."""
        begun = int(np.searchsorted(self.mix.starts_us(), self.now_us, side="right")) - 1
        return min(begun, len(self.mix.phases_us) - 1)

    def frame(self) -> Frame:
        """One look, now."""
        simulation, now_us = self._simulation, self.now_us
        counters = self._waits.told(simulation, now_us)
        if now_us - self._busy_at_us >= _BUSY_EVERY_US:
            busy_us = self._others.busy_us(now_us, self._cpus, int(counters[:, RUN_NS].sum()) // 1000)
            self._busy_us = max(busy_us // _BUSY_STEP_US * _BUSY_STEP_US, self._busy_us)
            self._busy_at_us = now_us
        counters[:, [TURNS, INVOLUNTARY]] += self._others.pushes(counters[:, RUN_NS])[:, None]
        return Frame(
            at_us=now_us,
            tasks=self._tasks,
            counters=counters,
            settings=tuple(self._settings),
            hints=tuple(self._hints()) if self._telling else (None,) * len(self._tasks),
            group_nices={GroupId("autogroup", str(session)): nice for session, nice in self._nices.items()},
            host=Host(
                cpus=self._cpus,
                runnable=simulation.runnable() + self._others.runnable(now_us),
                busy_us=self._busy_us,
                steal_us=0,
                pressure_us=simulation.pressure_ns() // 1000,
            ),
        )

    def _hints(self) -> list[Hint | None]:
        now_us = self.now_us
        return [
            hint_of(self.mix, player, *self._simulation.answers(number), now_us, now_us)
            if player.name in self._telling
            else None
            for number, player in enumerate(self.mix.players)
        ]
