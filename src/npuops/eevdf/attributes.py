"""A task or a session is told another setting while the machine runs (sched_setattr, /proc/PID/autogroup)."""

from __future__ import annotations

from typing import Final

from npuops.eevdf import rules as rule
from npuops.eevdf import world as at
from npuops.eevdf.balance import place_above
from npuops.eevdf.compiled import compiled
from npuops.eevdf.dispatch import charge_running, preempt
from npuops.eevdf.reservation import DEADLINE, above_fair, renew, runs_on
from npuops.eevdf.run_queue import dequeue, enqueue, rank, resume, reweigh, stop, weigh_group
from npuops.eevdf.setting import SchedPolicy
from npuops.eevdf.world import Table, World

IDLE: Final = int(SchedPolicy.IDLE)


@compiled
def set_task(w: World, task: int, wanted: Table) -> None:
    """Take it out of its queue, change it, put it back (sched_change).

    Args:
        w: the world.
        task: which.
        wanted: policy, weight, slice (ns, 0 for the kernel's), budget (ns), period (ns), priority.
    """
    cpu = runs_on(w, task)
    if cpu >= 0:
        charge_running(w, cpu)
    was_above = above_fair(w, task)
    if was_above:
        w.g[at.ABOVE] -= 1
        leave_above(w, task, wanted[0])
    old = w.e[task, at.WEIGHT]
    delayed, queued = w.e[task, at.DELAYED], w.e[task, at.QUEUED]
    w.e[task, at.POLICY] = wanted[0]
    to_above = above_fair(w, task)
    if queued:
        dequeue(w, task, bool(delayed and to_above))
    if to_above:
        join_above(w, task, wanted, was_above)
    else:
        w.e[task, at.IDLE] = 1 if wanted[0] == IDLE else 0
        w.e[task, at.OWN_SLICE] = 1 if wanted[2] else 0
        w.e[task, at.SLICE] = wanted[2] if wanted[2] else w.rules[rule.BASE_SLICE_NS]
        reweigh(w, task, wanted[1])
        if w.e[task, at.AWAKE] or delayed:
            enqueue(w, task, w.e[task, at.CPU])
            w.e[task, at.DELAYED] = delayed
    if not w.e[task, at.AWAKE]:
        return
    if cpu >= 0:
        go_on(w, cpu, task)
        if was_above != to_above or was_above or wanted[1] < old:
            w.c[cpu, at.RESCHEDULE] = 1
    else:
        preempt(w, place_above(w, task) if to_above else w.e[task, at.CPU], task)


@compiled
def go_on(w: World, cpu: int, task: int) -> None:
    """It ran, and runs in its new place until somebody says otherwise."""
    if above_fair(w, task):
        w.e[task, at.CHARGED_AT] = w.g[at.NOW]
        if w.q[cpu, at.CURRENT] >= 0:
            stop(w, cpu, w.q[cpu, at.CURRENT])
        return
    queue = w.e[task, at.QUEUE]
    group = w.q[queue, at.GROUP]
    if group >= 0 and w.q[cpu, at.CURRENT] != group:
        resume(w, cpu, group)
    resume(w, queue, task)


@compiled
def leave_above(w: World, task: int, policy: int) -> None:
    """Its reservation ends, unless it only gets another one: then what it owes stays."""
    if policy != DEADLINE:
        w.e[task, at.THROTTLED] = 0
        w.e[task, at.REPLENISH_AT] = at.NEVER


@compiled
def join_above(w: World, task: int, wanted: Table, was_above: bool) -> None:
    """A new reservation begins with its full budget; one that is changed goes on with what it has."""
    w.g[at.ABOVE] += 1
    w.e[task, at.PRIORITY] = wanted[5]
    w.e[task, at.IDLE] = 0
    fresh = not was_above or w.e[task, at.BUDGET] == 0
    w.e[task, at.BUDGET] = wanted[3]
    w.e[task, at.PERIOD] = wanted[4]
    if wanted[0] != DEADLINE:
        w.e[task, at.BUDGET] = 0
    elif fresh:
        renew(w, task)
    rank(w, task)


@compiled
def set_session(w: World, session: int, weight: int) -> None:
    """Weight of a session against the others, on every CPU."""
    first = w.g[at.TASKS] + session * w.g[at.CPUS]
    for group in range(first, first + w.g[at.CPUS]):
        w.e[group, at.PRIORITY] = weight
        if w.g[at.CPUS] > 1:
            weigh_group(w, group)
        else:
            reweigh(w, group, weight)
