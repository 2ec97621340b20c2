"""Who runs on a CPU: wake-up, preemption, departure, and the change from one task to the next."""

from __future__ import annotations

from typing import Final

from npuops.eevdf import rules as rule
from npuops.eevdf import world as at
from npuops.eevdf.balance import pull_to_idle
from npuops.eevdf.compiled import compiled
from npuops.eevdf.fair_queue import charge, load, pick, protect_pick, virtual
from npuops.eevdf.load_mean import note_load
from npuops.eevdf.reservation import DEADLINE, above_fair, admit_wake, before, charge_above, most_urgent, serve_fair
from npuops.eevdf.run_queue import dequeue, enqueue, rank, start, stop
from npuops.eevdf.setting import SchedPolicy
from npuops.eevdf.world import World

OTHER: Final = int(SchedPolicy.OTHER)


@compiled
def charge_running(w: World, cpu: int) -> None:
    """Book what this CPU's task and the groups around it have had."""
    task = w.c[cpu, at.TASK]
    if task < 0:
        return
    if above_fair(w, task):
        charge_above(w, task)
        return
    queue = w.e[task, at.QUEUE]
    charge(w, queue)
    group = w.q[queue, at.GROUP]
    if group >= 0:
        charge(w, w.e[group, at.QUEUE])


@compiled
def wake(w: World, task: int, cpu: int) -> None:
    """A sleeper wants a CPU: it joins this one, and takes it if it may (try_to_wake_up, wakeup_preempt)."""
    note_load(w, task)
    w.e[task, at.AWAKE] = 1
    w.e[task, at.WAITING_SINCE] = w.g[at.NOW]
    if above_fair(w, task):
        rank(w, task)
        if w.e[task, at.POLICY] == DEADLINE:
            admit_wake(w, task)
        if w.e[task, at.THROTTLED]:
            return
        w.e[task, at.CPU] = cpu
    else:
        enqueue(w, task, cpu)
    preempt(w, cpu, task)


@compiled
def preempt(w: World, cpu: int, task: int) -> None:
    """Ask for a new pick if the newcomer should run now (check_preempt_wakeup_fair and its like)."""
    current = w.c[cpu, at.TASK]
    if current < 0 or before(w, task, current):
        w.c[cpu, at.RESCHEDULE] = 1
        return
    if current == task or w.c[cpu, at.RESCHEDULE] or above_fair(w, task) or above_fair(w, current):
        return
    one, other = current, task
    if w.e[one, at.QUEUE] != w.e[other, at.QUEUE]:
        one, other = w.q[w.e[one, at.QUEUE], at.GROUP], w.q[w.e[other, at.QUEUE], at.GROUP]
    if w.e[one, at.IDLE] and not w.e[other, at.IDLE]:
        w.e[one, at.PROTECTED] = w.e[one, at.V]
        w.c[cpu, at.RESCHEDULE] = 1
        return
    if w.e[one, at.IDLE] != w.e[other, at.IDLE] or w.e[task, at.POLICY] != OTHER:
        return
    queue = w.e[one, at.QUEUE]
    charge(w, queue)
    if w.rules[rule.CFS]:
        if w.e[one, at.V] - w.e[other, at.V] > virtual(w, other, w.rules[rule.CFS_WAKE_NS]):
            w.c[cpu, at.RESCHEDULE] = 1
        return
    short = bool(w.rules[rule.PREEMPT_SHORT] and w.e[other, at.SLICE] < w.e[one, at.SLICE])
    if pick(w, queue, not short) == other:
        if short:
            w.e[one, at.PROTECTED] = min(w.e[one, at.PROTECTED], w.e[one, at.V])
        w.c[cpu, at.RESCHEDULE] = 1
    elif short and w.rules[rule.PARITY]:
        until = w.e[one, at.PROTECTED]
        protect_pick(w, queue, one)
        w.e[one, at.PROTECTED] = min(until, w.e[one, at.PROTECTED])


@compiled
def sleep(w: World, task: int) -> None:
    """The running task has nothing to do; its CPU takes the next at once."""
    cpu = w.e[task, at.CPU]
    charge_running(w, cpu)
    note_load(w, task)
    w.e[task, at.AWAKE] = 0
    if not above_fair(w, task):
        dequeue(w, task, True)
    schedule(w, cpu)


@compiled
def pick_fair(w: World, cpu: int) -> int:
    """The next task of the fair class, or -1. Delayed ones that come up have paid, and leave (pick_task_fair)."""
    while True:
        queue = cpu
        if w.q[queue, at.NUMBER] == 0:
            return -1
        while True:
            charge(w, queue)
            entity = pick(w, queue, True)
            if w.e[entity, at.DELAYED]:
                dequeue(w, entity, True)
                break
            queue = w.e[entity, at.BELOW]
            if queue < 0:
                return int(entity)


@compiled
def schedule(w: World, cpu: int) -> None:
    """Give the CPU to whoever should have it (__schedule)."""
    was = w.c[cpu, at.TASK]
    if was >= 0 and w.e[was, at.AWAKE]:
        charge_running(w, cpu)
    then = -1
    if w.g[at.ABOVE] and not (w.c[cpu, at.SERVER_ON] and w.q[cpu, at.NUMBER]):
        then = most_urgent(w, cpu)
    if then < 0:
        then = pick_fair(w, cpu)
        if then < 0 and w.g[at.ABOVE]:
            then = most_urgent(w, cpu)
        if then < 0 and w.g[at.CPUS] > 1 and pull_to_idle(w, cpu):
            then = pick_fair(w, cpu)
    w.c[cpu, at.RESCHEDULE] = 0
    if then == was:
        return
    hand_over(w, cpu, was, then)
    if was >= 0:
        w.e[was, at.RAN_AT] = w.g[at.NOW]
        if w.e[was, at.AWAKE]:
            w.e[was, at.INVOLUNTARY] += 1
            w.e[was, at.WAITING_SINCE] = w.g[at.NOW]
        else:
            w.e[was, at.VOLUNTARY] += 1
    w.c[cpu, at.TASK] = then
    if then >= 0:
        arrive(w, cpu, then)
    if was >= 0 and w.e[was, at.AWAKE] and w.g[at.ABOVE] and above_fair(w, was):
        push(w, was)


@compiled
def push(w: World, task: int) -> None:
    """One above the fair class lost its CPU: another CPU should take it if it may run there."""
    for cpu in range(w.g[at.CPUS]):
        current = w.c[cpu, at.TASK]
        if w.e[task, at.PINNED] >= 0 and w.e[task, at.PINNED] != cpu:
            continue
        if not w.e[task, at.THROTTLED] and (current < 0 or before(w, task, current)):
            w.c[cpu, at.RESCHEDULE] = 1
            return


@compiled
def hand_over(w: World, cpu: int, was: int, then: int) -> None:
    """Levels that both have in common go on running; the rest of one's stop, the rest of the other's start."""
    new = w.e[then, at.QUEUE] if then >= 0 and not above_fair(w, then) else -1
    group = w.q[new, at.GROUP] if new >= 0 else -1
    if was >= 0 and not above_fair(w, was):
        old = w.e[was, at.QUEUE]
        if w.q[old, at.CURRENT] == was:
            stop(w, old, was)
        owner = w.q[old, at.GROUP]
        if owner >= 0 and owner != group and w.q[cpu, at.CURRENT] == owner:
            stop(w, cpu, owner)
    if new < 0:
        return
    if group >= 0 and w.q[cpu, at.CURRENT] != group:
        start(w, cpu, group)
    start(w, new, then)


@compiled
def arrive(w: World, cpu: int, task: int) -> None:
    """Book the wait, and what the change costs: the switch, and its cache if another task has been here since."""
    w.e[task, at.CPU] = cpu
    w.e[task, at.CHARGED_AT] = w.g[at.NOW]
    w.e[task, at.WAIT] += w.g[at.NOW] - w.e[task, at.WAITING_SINCE]
    w.e[task, at.TURNS] += 1
    w.c[cpu, at.SWITCHES] += 1
    if w.c[cpu, at.LAST_TASK] != task:
        w.e[task, at.DEBT] += w.rules[rule.SWITCH_NS]
        if w.e[task, at.DOING] == at.SCAN:
            w.e[task, at.DEBT] = w.rules[rule.SWITCH_NS] + w.rules[rule.REFILL_NS]
    w.c[cpu, at.LAST_TASK] = task


@compiled
def tick(w: World, cpu: int) -> None:
    """The timer interrupt of a busy CPU (task_tick): the one moment at which a task that never sleeps is looked at."""
    charge_running(w, cpu)
    if w.g[at.ABOVE] or w.c[cpu, at.SERVER_END]:
        serve_fair(w, cpu, w.q[cpu, at.NUMBER] > 0)
    task = w.c[cpu, at.TASK]
    if w.rules[rule.CFS] and not above_fair(w, task):
        queue = w.e[task, at.QUEUE]
        tick_cfs(w, queue, task)
        group = w.q[queue, at.GROUP]
        if group >= 0:
            tick_cfs(w, cpu, group)


@compiled
def tick_cfs(w: World, queue: int, entity: int) -> None:
    """CFS: its part of the latency is over, or it is ahead of the hindmost by as much (check_preempt_tick)."""
    number = w.q[queue, at.NUMBER]
    if number < 2:
        return
    period = max(w.rules[rule.CFS_LATENCY_NS], number * w.rules[rule.CFS_LEAST_NS])
    ideal = period * w.e[entity, at.WEIGHT] // load(w, queue)
    had = w.e[entity, at.RUN] - w.e[entity, at.RUN_AT_PICK]
    least = at.NEVER
    for place in range(at.MEMBERS, at.MEMBERS + number):
        other = w.q[queue, place]
        if other != entity:
            least = min(least, w.e[other, at.V])
    ahead = w.e[entity, at.V] - least > ideal
    if had > ideal or (had >= w.rules[rule.CFS_LEAST_NS] and ahead):
        w.c[w.q[queue, at.HOST], at.RESCHEDULE] = 1
