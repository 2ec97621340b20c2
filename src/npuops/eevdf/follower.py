"""The rules asked at every step of a CPU that somebody else steers: what would they have done here?

A simulation and a kernel that differ once differ for ever after: the next wake-up finds another task running. So this
one is told what the kernel did, and asked beforehand; each answer stands on what the kernel really did until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

import numpy as np

from npuops.eevdf import world as at
from npuops.eevdf.compiled import compile_all, compiled
from npuops.eevdf.dispatch import charge_running, hand_over, pick_fair, tick, wake
from npuops.eevdf.mix import REST, Mix, Player
from npuops.eevdf.rules import Rules
from npuops.eevdf.run_queue import dequeue
from npuops.eevdf.setting import DEFAULT, FAIR, Setting
from npuops.eevdf.simulation import Simulation
from npuops.eevdf.weights import NICE_0
from npuops.eevdf.world import Table, World
from npuops.errors import OptionError

PICK, TICK, WAKE = range(3)
"""What is asked: who is next, who runs after a tick, who runs after a task woke."""
UNSURE: Final = -2
"""An answer that is another one if a figure is a little off."""


class Answer(NamedTuple):
    """What the rules say.

    Attributes:
        task: who has the CPU next; -1 for nobody.
        sure: it is the same if any task had a little more or less CPU time.
        rivals: tasks that want the CPU, this one among them.
    """

    task: int
    sure: bool
    rivals: int


@compiled
def copy_table(table: Table, into: Table) -> None:
    """Cell by cell: compiled code may not allocate, which a slice could."""
    for row in range(table.shape[0]):
        for column in range(table.shape[1]):
            into[row, column] = table[row, column]


@compiled
def copy_world(w: World, into: World) -> None:
    """All that changes."""
    copy_table(w.e, into.e)
    copy_table(w.q, into.q)
    copy_table(w.c, into.c)
    for place in range(len(w.g)):
        into.g[place] = w.g[place]


@compiled
def outcome(w: World, asked: int, task: int) -> int:
    """Let it happen on CPU 0; who runs then."""
    if asked == PICK:
        return pick_fair(w, 0)
    current = w.c[0, at.TASK]
    if asked == TICK:
        tick(w, 0)
    else:
        wake(w, task, 0)
    if w.c[0, at.RESCHEDULE] == 0:
        return int(current)
    charge_running(w, 0)
    return pick_fair(w, 0)


@compiled
def ask(w: World, scratch: World, asked: int, task: int, blur_ns: int) -> int:
    """The same for the world as it is, and for some a little off; `UNSURE` if they do not agree."""
    copy_world(w, scratch)
    found = outcome(scratch, asked, task)
    for other in range(w.g[at.TASKS]):
        if not w.e[other, at.QUEUED]:
            continue
        for column in (at.V, at.DEADLINE):
            for blur in (-blur_ns, blur_ns):
                copy_world(w, scratch)
                scratch.e[other, column] += blur
                if column == at.V:
                    scratch.e[other, at.PROTECTED] += blur
                if outcome(scratch, asked, task) != found:
                    return UNSURE
    return found


@compiled
def steer(w: World, then: int, stays: int) -> None:
    """The CPU's task leaves it, to sleep or to wait, and this one comes (-1: nobody of ours)."""
    was = w.c[0, at.TASK]
    if was >= 0:
        charge_running(w, 0)
        if stays == 0:
            w.e[was, at.AWAKE] = 0
            dequeue(w, was, True)
    if then >= 0:
        pick_fair(w, 0)  # for its side: delayed ones that come up have paid, and leave
    hand_over(w, 0, was, then)
    w.c[0, at.TASK] = then
    w.c[0, at.RESCHEDULE] = 0


class Follower:
    """One CPU, one session, tasks of the fair class."""

    def __init__(self, settings: Sequence[Setting], rules: Rules, blur_ns: int) -> None:
        """Everybody asleep.

        Args:
            settings: of each task.
            rules: to be asked.
            blur_ns: how far CPU times may be off.

        Raises:
            OptionError: a task that is not of the fair class.
        """
        if any(setting.policy not in FAIR for setting in settings):
            raise OptionError("only tasks of the fair class can be followed")
        players = tuple(Player(f"t{number}", (REST,)) for number in range(len(settings)))
        simulation = Simulation(Mix("followed", (1,), players), 0, rules)
        for number, setting in enumerate(settings):
            if setting != DEFAULT:
                simulation.set(number, setting)
        self._w = simulation.tables
        self._scratch = World(*(np.copy(table) for table in self._w))
        self._blur_ns = blur_ns
        _prepare()

    @property
    def running(self) -> int:
        """The task that has the CPU; -1 for none of ours."""
        return int(self._w.c[0, at.TASK])

    def tick(self, moment_ns: int) -> Answer:
        """A tick: who should run after it."""
        answer = self._ask(moment_ns, TICK, -1)
        tick(self._w, 0)
        self._w.c[0, at.RESCHEDULE] = 0
        return answer

    def wake(self, moment_ns: int, task: int) -> Answer:
        """This task wakes: who should run now."""
        answer = self._ask(moment_ns, WAKE, task)
        wake(self._w, task, 0)
        self._w.c[0, at.RESCHEDULE] = 0
        return answer

    def change(self, moment_ns: int, then: int, *, stays: bool, booked_ns: int = 0) -> Answer:
        """The running task leaves the CPU, and `then` comes (-1: none of ours): who should have.

        Args:
            moment_ns: now.
            then: who comes.
            stays: who leaves wants the CPU still.
            booked_ns: what who leaves was charged for since it came; 0 for the time that passed.
        """
        w = self._w
        w.g[at.NOW] = moment_ns
        was = self.running
        if was >= 0 and booked_ns:
            self._book(was, booked_ns)
        if was >= 0 and not stays:
            steer(w, -1, 0)  # it is gone before anybody is picked
            was = -1
        elif was >= 0:
            charge_running(w, 0)
        if then >= 0 and not w.e[then, at.AWAKE]:
            wake(w, then, 0)
        answer = self._ask(moment_ns, PICK, -1)
        steer(w, then, 1)
        return answer

    def _book(self, task: int, booked_ns: int) -> None:
        """What is not charged yet of this is charged next; what was charged too much goes back."""
        row = self._w.e[task]
        left = booked_ns - int(row[at.RUN] - row[at.RUN_AT_PICK])
        row[at.CHARGED_AT] = self._w.g[at.NOW] - max(left, 0)
        if left < 0:
            row[at.RUN] += left
            row[at.V] += left * NICE_0 // row[at.WEIGHT]

    def _ask(self, moment_ns: int, asked: int, task: int) -> Answer:
        w = self._w
        w.g[at.NOW] = moment_ns
        rivals = int(w.e[: w.g[at.TASKS], at.AWAKE].sum()) + (asked == WAKE)
        copy_world(w, self._scratch)
        plain = int(outcome(self._scratch, asked, task))
        sure = ask(w, self._scratch, asked, task, self._blur_ns) != UNSURE
        return Answer(plain, sure, rivals)


@cache
def _prepare() -> None:
    """Compile, once a process."""
    w = Simulation(Mix("nobody", (1,), (Player("nobody", (REST,)),)), 0).tables
    compile_all(
        [
            (outcome, (w, 0, 0)),
            (ask, (w, w, 0, 0, 0)),
            (steer, (w, 0, 0)),
            (copy_table, (w.e, w.e)),
            (copy_world, (w, w)),
            (wake, (w, 0, 0)),
            (tick, (w, 0)),
            (charge_running, (w, 0)),
        ]
    )
