"""More than one CPU: where a sleeper wakes, and which waiting task another CPU takes over."""

from __future__ import annotations

from typing import Final

from npuops.eevdf import rules as rule
from npuops.eevdf import world as at
from npuops.eevdf.compiled import compiled
from npuops.eevdf.fair_queue import load
from npuops.eevdf.load_mean import FULL, note_load
from npuops.eevdf.reservation import above_fair, before
from npuops.eevdf.run_queue import dequeue, enqueue
from npuops.eevdf.world import World

HOT_NS: Final = 500_000
"""Who ran so lately keeps its cache, and stays (the default of sched_migration_cost)."""
BUSY_TICKS: Final = 7
"""Between balances of a CPU that is busy, of a pair of CPUs: 32 ms less one tick, at 250 Hz."""
UNEVEN_PERCENT: Final = 117
PATIENCE: Final = 2
"""After so many balances without a move, warm caches count no more."""


@compiled
def crowd(w: World, cpu: int) -> int:
    """Tasks that run or wait there."""
    number = 0
    for task in range(w.g[at.TASKS]):
        if w.e[task, at.AWAKE] and not w.e[task, at.THROTTLED] and w.e[task, at.CPU] == cpu:
            number += 1
    return number


@compiled
def free(w: World, cpu: int) -> bool:
    """Nobody runs there, or SCHED_IDLE tasks only: as good as idle to a task that wakes."""
    for task in range(w.g[at.TASKS]):
        there = w.e[task, at.AWAKE] and not w.e[task, at.THROTTLED] and w.e[task, at.CPU] == cpu
        if there and (above_fair(w, task) or not w.e[task, at.IDLE]):
            return False
    return True


@compiled
def place_wake(w: World, task: int, waker: int) -> int:
    """CPU for a fair task that wakes: a free one, its last one first; else its last, or its waker's if less loaded.

    Args:
        w: the world.
        task: who wakes.
        waker: CPU of the task that wakes it; -1 for a timer, which rings on its last CPU.
    """
    last = w.e[task, at.CPU]
    if w.g[at.CPUS] == 1 or w.e[task, at.QUEUED]:
        return int(last)  # a delayed one never left
    target = last
    if waker >= 0 and waker != last:
        # The waker is about to sleep (it says so): alone on its CPU, it leaves that to the task it wakes.
        alone = crowd(w, waker) == 1
        if alone or cpu_load(w, waker) < cpu_load(w, last):
            target = waker
    if free(w, target):
        return int(target)
    if free(w, last):
        return int(last)
    for cpu in range(w.g[at.CPUS]):
        # Further CPUs are searched only while they are not busy (SIS_UTIL), and SCHED_IDLE tasks make busy, too.
        if w.c[cpu, at.TASK] < 0:
            return int(cpu)
    return int(target)


@compiled
def place_above(w: World, task: int) -> int:
    """CPU for a task above the fair class: its last one if it may run there, an idle one, or one where it may."""
    last = w.e[task, at.CPU]
    if w.e[task, at.PINNED] >= 0:
        return int(w.e[task, at.PINNED])
    found = -1
    for cpu in range(w.g[at.CPUS]):
        current = w.c[cpu, at.TASK]
        if current < 0 or before(w, task, current):
            if cpu == last:
                return int(cpu)
            if found < 0 or (current < 0 <= w.c[found, at.TASK]):
                found = cpu
    return int(last if found < 0 else found)


@compiled
def task_load(w: World, task: int) -> int:
    """Weight times how much it wanted of late; a group's weight is split among its own."""
    note_load(w, task)
    weight = w.e[task, at.WEIGHT]
    if w.g[at.SESSIONS] and w.e[task, at.QUEUED]:
        queue = w.e[task, at.QUEUE]
        weight = weight * w.e[w.q[queue, at.GROUP], at.WEIGHT] // load(w, queue)
    return int(weight * w.e[task, at.LOAD] // FULL)


@compiled
def cpu_load(w: World, cpu: int) -> int:
    """Of the fair tasks that run or wait there."""
    total = 0
    for task in range(w.g[at.TASKS]):
        if w.e[task, at.AWAKE] and w.e[task, at.CPU] == cpu and not above_fair(w, task):
            total += task_load(w, task)
    return total


@compiled
def note_taken(w: World, cpu: int) -> None:
    """At a tick: how much of the CPU the classes above took, a mean that halves in about 32 ms."""
    task = w.c[cpu, at.TASK]
    goal = FULL - 1 if task >= 0 and above_fair(w, task) else 0
    w.c[cpu, at.TAKEN] += (goal - w.c[cpu, at.TAKEN]) * (w.rules[rule.TICK_NS] // 46_000) >> 10


@compiled
def density(w: World, cpu: int) -> int:
    """Load for what the classes above leave of the CPU."""
    return int(cpu_load(w, cpu) * FULL // (FULL - w.c[cpu, at.TAKEN]))


@compiled
def candidate(w: World, source: int, most: int, failed: int) -> int:
    """Waiting fair task there that was off a CPU the longest, and is no more load than `most`; -1 if there is none."""
    best = -1
    for task in range(w.g[at.TASKS]):
        waits = w.e[task, at.AWAKE] and w.e[task, at.CPU] == source and w.c[source, at.TASK] != task
        if not waits or above_fair(w, task):
            continue
        if failed < PATIENCE and w.g[at.NOW] - w.e[task, at.RAN_AT] < HOT_NS:
            continue
        if task_load(w, task) >> min(failed, 30) > most:
            continue
        if best < 0 or w.e[task, at.RAN_AT] < w.e[best, at.RAN_AT]:
            best = task
    return best


@compiled
def move(w: World, task: int, cpu: int) -> None:
    """A waiting task changes its CPU; its lag and what is left of its request go with it."""
    dequeue(w, task, False)
    enqueue(w, task, cpu)


@compiled
def pull_to_idle(w: World, cpu: int) -> bool:
    """A CPU without work takes a waiting task of the fullest other one."""
    source, most = -1, 1
    for other in range(w.g[at.CPUS]):
        if other != cpu:
            number = crowd(w, other)
            if number > most:
                source, most = other, number
    if source < 0:
        return False
    task = candidate(w, source, at.NEVER, w.c[cpu, at.FAILED])
    if task < 0:
        w.c[cpu, at.FAILED] += 1
        return False
    w.c[cpu, at.FAILED] = 0
    move(w, task, cpu)
    return True


@compiled
def pull_to_busy(w: World, cpu: int) -> int:
    """Every few ticks a busy CPU takes a task of a more loaded one, if that halves the difference; or -1.

    A task larger than half the difference moves only after some failures: so three hogs on two CPUs take turns.
    """
    if w.g[at.NOW] < w.c[cpu, at.BALANCE_AT]:
        return -1
    w.c[cpu, at.BALANCE_AT] = w.g[at.NOW] + BUSY_TICKS * w.rules[rule.TICK_NS]
    mine, source, most, total, capacity = density(w, cpu), -1, 0, 0, 0
    for other in range(w.g[at.CPUS]):
        there = density(w, other)
        total += cpu_load(w, other)
        capacity += FULL - w.c[other, at.TAKEN]
        if other != cpu and there > most and crowd(w, other) > 1:
            source, most = other, there
    mean = total * FULL // capacity
    if source < 0 or most * 100 <= UNEVEN_PERCENT * mine or mine >= mean:
        w.c[cpu, at.FAILED] = 0
        return -1
    surplus = (most - mean) * (FULL - w.c[source, at.TAKEN]) // FULL
    room = (mean - mine) * (FULL - w.c[cpu, at.TAKEN]) // FULL
    task = candidate(w, source, min(surplus, room), w.c[cpu, at.FAILED])
    if task < 0:
        w.c[cpu, at.FAILED] += 1
        return -1
    w.c[cpu, at.FAILED] = 0
    move(w, task, cpu)
    return task
