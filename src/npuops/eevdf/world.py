"""The simulated machine as a few tables of int64: rows are entities, queues and CPUs, columns are named here.

An entity is what a queue of the fair scheduler orders: a task, or a session's group on one CPU. Tasks come first.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.int64]

# fmt: off
(
    WEIGHT, SLICE, OWN_SLICE, V, DEADLINE, LAG, PROTECTED, RELATIVE, QUEUED, DELAYED, ORDER, QUEUE,
    BELOW, IDLE, CHARGED_AT, RUN, RUN_AT_PICK, POLICY, CPU, SESSION, PRIORITY, AWAKE, WAITING_SINCE,
    WAIT, TURNS, VOLUNTARY, INVOLUNTARY, RAN_AT, LOAD, LOAD_AT, BUDGET, PERIOD, BUDGET_LEFT, DUE,
    THROTTLED, REPLENISH_AT, DOING, WORK, GAP, PERIODIC, STEP, LEFT, DEBT, PEER, TOKENS, CHANCE,
    NEXT, REQUEST, CHANGED, TIMER, PROGRESS, PINNED,
) = range(52)
# fmt: on
"""Of entities. Of the fair scheduler, for groups too:
WEIGHT, SLICE (ns), OWN_SLICE (1: not the kernel's), V (virtual ns), DEADLINE (virtual), LAG (virtual ns owed when it
left), PROTECTED (keeps the CPU until V is this), RELATIVE (1: DEADLINE counts from V), QUEUED, DELAYED (sleeps, but is
still queued), ORDER (of equal deadlines the older), QUEUE, BELOW (the queue inside a group; -1 for a task),
IDLE (1: SCHED_IDLE), CHARGED_AT (ns), RUN (ns), RUN_AT_PICK (ns).
Of tasks only: POLICY (the kernel's number), CPU, SESSION, PRIORITY (FIFO; of a group: the
session's weight), AWAKE (runs or waits), WAITING_SINCE, WAIT,
TURNS, VOLUNTARY, INVOLUNTARY, RAN_AT, LOAD (0 to 1024 of late), LOAD_AT; the reservation: BUDGET, PERIOD, BUDGET_LEFT,
DUE, THROTTLED, REPLENISH_AT; what it does: DOING, WORK, GAP, PERIODIC, STEP, LEFT (ns of this step), DEBT (ns lost to
switch and cache first), PEER, TOKENS (bytes in its pipe), CHANCE, NEXT (arrival, or line of its
part), REQUEST (being served), CHANGED (1: its role ended while it ran), TIMER (wakes it), PROGRESS, PINNED (above the
fair class: runs on this CPU only; -1)."""

NUMBER, CURRENT, BUDDY, LAST_V, GROUP, HOST, MEMBERS = range(7)
"""Of queues: NUMBER of entities, the CURRENT one (it counts among the members; -1), BUDDY (-1), LAST_V, GROUP (entity
that this queue is inside of; -1 at the root), HOST (the CPU), and from MEMBERS on the entities."""

TASK, RESCHEDULE, LAST_TASK, SWITCHES, BALANCE_AT, FAILED, SERVER_LEFT, SERVER_END, SERVER_ON, TAKEN = range(10)
"""Of CPUs: TASK that runs (-1: idle), RESCHEDULE, LAST_TASK, SWITCHES, BALANCE_AT (ns), FAILED balances, and the fair
class's own reservation below the real-time classes, TAKEN (0 to 1024: by those classes, of late)."""

NOW, TICK_AT, TICKS, PHASE, PRESSURE, COUNT, TASKS, CPUS, ABOVE, CHANCE_OF_TICK, SESSIONS, FIRST_TICK = range(12)
"""Of the machine: NOW (ns), TICK_AT, TICKS, PHASE, PRESSURE (ns times `FRACTION`), COUNT (gives ORDER), TASKS, CPUS,
ABOVE (tasks above the fair class), CHANCE_OF_TICK, SESSIONS (0: no groups),
FIRST_TICK (ns)."""

NEVER: Final = 1 << 60
FRACTION: Final = 27_720
"""Divisible by 1 to 12, so that pressure shared among CPUs stays whole."""

REST, SERVE, COMPUTE, SCAN, CYCLE, PIPE, ACT = range(7)
"""DOING, in the order of `mix.Doing`; ACT is none of a mix: the task follows its part of `Script.parts`."""

NOTHING, SERVING, ENDLESS, BURST, TURN, READ, NOTICE, LINE = range(8)
"""STEP."""

UNTIL, SPAN, CALL, WAKE, EXIT = range(5)
"""What a line of a part ends with: it sleeps UNTIL a moment (ns), for a SPAN (ns), until a CALL; or WAKEs a task, which
is such a call, and goes on; or sleeps for good (EXIT)."""


class World(NamedTuple):
    """All that changes while the machine runs, and its rules.

    Attributes:
        e: entities.
        q: queues: the root of each CPU first.
        c: CPUs.
        g: the machine.
        rules: `rules.Rules.table`.
    """

    e: Table
    q: Table
    c: Table
    g: Table
    rules: Table


class Script(NamedTuple):
    """What the tasks do.

    Attributes:
        acts: shape (phases, tasks, 4): DOING, WORK, GAP (ns), PERIODIC.
        starts: ns, one more than phases.
        arrivals: of all tasks, one after the other.
        first: where each task's begin, and where the last one's end.
        done: as arrivals: when the answer was there; -1 until then.
        gaps: exponential gaps of mean 65536, to draw from.
        parts: of all tasks that ACT, one after the other, shape (lines, 3): CPU time (ns; `NEVER` without end), what
            it ends with, and of that the moment, the span or the task. Each ends with one that is without end, or EXIT.
    """

    acts: Table
    starts: Table
    arrivals: Table
    first: Table
    done: Table
    gaps: Table
    parts: Table
