"""Above the fair class: SCHED_DEADLINE reservations (a constant bandwidth server each), then FIFO.

Both classes are global: a CPU takes the most urgent one that runs nowhere, as the kernel's push and pull come to.
Budgets are charged at ticks and departures only (HRTICK is off), so one can overrun by a tick, and pays it back.
"""

from __future__ import annotations

from typing import Final

from npuops.eevdf import rules as rule
from npuops.eevdf import world as at
from npuops.eevdf.compiled import compiled
from npuops.eevdf.setting import SchedPolicy
from npuops.eevdf.world import World

FIFO: Final = int(SchedPolicy.FIFO)
RR: Final = int(SchedPolicy.RR)
DEADLINE: Final = int(SchedPolicy.DEADLINE)
SERVER_BUDGET_NS: Final = 50_000_000
SERVER_PERIOD_NS: Final = 1_000_000_000
"""The fair class itself is promised 5 % below the real-time classes (the kernel's fair server, since 6.12)."""


@compiled
def above_fair(w: World, task: int) -> bool:
    """It is of a class that goes before the fair one."""
    policy = w.e[task, at.POLICY]
    return bool(policy in (DEADLINE, FIFO, RR))


@compiled
def before(w: World, one: int, other: int) -> bool:
    """One preempts the other; a fair task preempts nobody here."""
    if not above_fair(w, one):
        return False
    if not above_fair(w, other):
        return True
    if w.e[one, at.POLICY] == DEADLINE:
        return bool(w.e[other, at.POLICY] != DEADLINE or w.e[one, at.DUE] < w.e[other, at.DUE])
    return bool(w.e[other, at.POLICY] != DEADLINE and w.e[one, at.PRIORITY] > w.e[other, at.PRIORITY])


@compiled
def runs_on(w: World, task: int) -> int:
    """The CPU that it runs on now, or -1."""
    cpu = w.e[task, at.CPU]
    return int(cpu) if w.c[cpu, at.TASK] == task else -1


@compiled
def most_urgent(w: World, cpu: int) -> int:
    """Task above the fair class that this CPU should run, or -1; of FIFO equals, the one that waits the longest."""
    best = -1
    for task in range(w.g[at.TASKS]):
        if not w.e[task, at.AWAKE] or w.e[task, at.THROTTLED] or not above_fair(w, task):
            continue
        place = runs_on(w, task)
        if place < 0:
            place = w.e[task, at.PINNED]
        if place >= 0 and place != cpu:
            continue
        older = best >= 0 and not before(w, best, task) and w.e[task, at.ORDER] < w.e[best, at.ORDER]
        if best < 0 or older or before(w, task, best):
            best = task
    return int(best)


@compiled
def replenish(w: World, task: int) -> None:
    """A new period, or as many as an overrun has used up (replenish_dl_entity)."""
    while w.e[task, at.BUDGET_LEFT] <= 0:
        w.e[task, at.BUDGET_LEFT] += w.e[task, at.BUDGET]
        w.e[task, at.DUE] += w.e[task, at.PERIOD]
    if w.e[task, at.DUE] < w.g[at.NOW]:
        renew(w, task)


@compiled
def renew(w: World, task: int) -> None:
    """A full budget from now on."""
    w.e[task, at.DUE] = w.g[at.NOW] + w.e[task, at.PERIOD]
    w.e[task, at.BUDGET_LEFT] = w.e[task, at.BUDGET]


@compiled
def admit_wake(w: World, task: int) -> None:
    """One that wakes keeps its budget only if that fits before its deadline at its rate (the CBS rule)."""
    if w.e[task, at.THROTTLED]:
        return
    left = w.e[task, at.DUE] - w.g[at.NOW]
    if left <= 0 or w.e[task, at.BUDGET_LEFT] * w.e[task, at.PERIOD] > left * w.e[task, at.BUDGET]:
        renew(w, task)


@compiled
def charge_above(w: World, task: int) -> None:
    """Book what a running task above the fair class has had; a used-up reservation waits for its next period."""
    span = w.g[at.NOW] - w.e[task, at.CHARGED_AT]
    w.e[task, at.CHARGED_AT] = w.g[at.NOW]
    w.e[task, at.RUN] += span
    if w.e[task, at.POLICY] != DEADLINE:
        return
    w.e[task, at.BUDGET_LEFT] -= span
    if w.e[task, at.BUDGET_LEFT] > 0:
        return
    w.c[w.e[task, at.CPU], at.RESCHEDULE] = 1
    if w.e[task, at.DUE] <= w.g[at.NOW]:
        replenish(w, task)
    else:
        w.e[task, at.THROTTLED] = 1
        w.e[task, at.REPLENISH_AT] = w.e[task, at.DUE]


@compiled
def serve_fair(w: World, cpu: int, waiting: bool) -> None:
    """Tick of the fair class's own reservation: its last 50 ms of a second, if it had less and somebody waits."""
    now = w.g[at.NOW]
    if not waiting:
        w.c[cpu, at.SERVER_END] = 0
        w.c[cpu, at.SERVER_ON] = 0
        return
    if w.c[cpu, at.SERVER_END] <= now:
        w.c[cpu, at.SERVER_END] = now + SERVER_PERIOD_NS
        w.c[cpu, at.SERVER_LEFT] = SERVER_BUDGET_NS
    due = now >= w.c[cpu, at.SERVER_END] - SERVER_BUDGET_NS - w.rules[rule.TICK_NS]
    serves = 1 if due and w.c[cpu, at.SERVER_LEFT] > 0 else 0
    if serves != w.c[cpu, at.SERVER_ON]:
        w.c[cpu, at.SERVER_ON] = serves
        w.c[cpu, at.RESCHEDULE] = 1
