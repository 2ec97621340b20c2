"""From one event to the next: work done, timers, ticks, phases."""

from __future__ import annotations

from npuops.eevdf import rules as rule
from npuops.eevdf import world as at
from npuops.eevdf.activity import change_role, finish, ring
from npuops.eevdf.balance import note_taken, place_above, pull_to_busy, pull_to_idle
from npuops.eevdf.compiled import compiled
from npuops.eevdf.dispatch import preempt, schedule, tick
from npuops.eevdf.reservation import replenish
from npuops.eevdf.world import Script, World


@compiled
def run_until(w: World, s: Script, moment_ns: int) -> None:
    """All events up to this moment, and the time between them.

    Whoever asks for less at a time gets the same future: nothing is booked at this function's end.
    """
    while True:
        then = next_event(w, s)
        if then > moment_ns:
            pass_time(w, moment_ns - w.g[at.NOW])
            return
        pass_time(w, then - w.g[at.NOW])
        complete(w, s)
        ring_timers(w, s)
        if w.g[at.TICK_AT] <= w.g[at.NOW]:
            tick_all(w)
        if s.starts[w.g[at.PHASE] + 1] <= w.g[at.NOW]:
            change_phase(w, s)
        reschedule(w)


@compiled
def next_event(w: World, s: Script) -> int:
    """The earliest of: a step done, a timer, a reservation's next period, the tick, a phase."""
    then = min(w.g[at.TICK_AT], s.starts[w.g[at.PHASE] + 1])
    for cpu in range(w.g[at.CPUS]):
        task = w.c[cpu, at.TASK]
        if task >= 0:
            then = min(then, w.g[at.NOW] + w.e[task, at.DEBT] + w.e[task, at.LEFT])
    for task in range(w.g[at.TASKS]):
        then = min(then, w.e[task, at.TIMER])
    if w.g[at.ABOVE]:
        for task in range(w.g[at.TASKS]):
            then = min(then, w.e[task, at.REPLENISH_AT])
    return int(then)


@compiled
def pass_time(w: World, span_ns: int) -> None:
    """Who runs works: first on what the switch cost, then on its step. Somebody waits: pressure."""
    if span_ns <= 0:
        return
    w.g[at.NOW] += span_ns
    busy = 0
    for cpu in range(w.g[at.CPUS]):
        task = w.c[cpu, at.TASK]
        if task < 0:
            continue
        busy += 1
        lost = min(span_ns, w.e[task, at.DEBT])
        w.e[task, at.DEBT] -= lost
        if w.e[task, at.STEP] != at.ENDLESS:
            w.e[task, at.LEFT] -= span_ns - lost
        if w.e[task, at.DOING] != at.PIPE and w.e[task, at.STEP] != at.NOTICE:
            w.e[task, at.PROGRESS] += span_ns - lost
    if busy:
        w.g[at.PRESSURE] += at.FRACTION // busy * pressed(w) * span_ns


@compiled
def pressed(w: World) -> int:
    """CPUs at which somebody waits."""
    number = 0
    for cpu in range(w.g[at.CPUS]):
        for task in range(w.g[at.TASKS]):
            waits = w.e[task, at.AWAKE] and not w.e[task, at.THROTTLED] and w.c[cpu, at.TASK] != task
            if waits and w.e[task, at.CPU] == cpu:
                number += 1
                break
    return number


@compiled
def complete(w: World, s: Script) -> None:
    """Steps that are done. What comes next may be done at once, too."""
    for cpu in range(w.g[at.CPUS]):
        task = w.c[cpu, at.TASK]
        while task >= 0 and w.e[task, at.DEBT] == 0 and w.e[task, at.LEFT] == 0:
            finish(w, s, task)
            task = w.c[cpu, at.TASK]


@compiled
def ring_timers(w: World, s: Script) -> None:
    """Sleeps that are over, and reservations that may run again."""
    now = w.g[at.NOW]
    for task in range(w.g[at.TASKS]):
        if w.e[task, at.TIMER] <= now:
            ring(w, s, task)
    if not w.g[at.ABOVE]:
        return
    for task in range(w.g[at.TASKS]):
        if w.e[task, at.REPLENISH_AT] <= now:
            w.e[task, at.REPLENISH_AT] = at.NEVER
            w.e[task, at.THROTTLED] = 0
            replenish(w, task)
            if w.e[task, at.AWAKE]:
                preempt(w, place_above(w, task), task)


@compiled
def tick_all(w: World) -> None:
    """The tick of every busy CPU; idle ones have none, but get work that waits elsewhere."""
    w.g[at.TICKS] += 1
    late = 0
    if w.rules[rule.JITTER_NS]:
        w.g[at.CHANCE_OF_TICK] = w.g[at.CHANCE_OF_TICK] * 48_271 % 2_147_483_647
        late = w.g[at.CHANCE_OF_TICK] % w.rules[rule.JITTER_NS]
    # Counted from the first: ticks are late by chance, but never drift.
    w.g[at.TICK_AT] = w.g[at.FIRST_TICK] + w.g[at.TICKS] * w.rules[rule.TICK_NS] + late
    for cpu in range(w.g[at.CPUS]):
        note_taken(w, cpu)
        if w.c[cpu, at.TASK] >= 0:
            tick(w, cpu)
            if w.g[at.CPUS] > 1:
                task = pull_to_busy(w, cpu)
                if task >= 0:
                    preempt(w, cpu, task)
    if w.g[at.CPUS] == 1:
        return
    for cpu in range(w.g[at.CPUS]):
        if w.c[cpu, at.TASK] < 0 and pull_to_idle(w, cpu):
            w.c[cpu, at.RESCHEDULE] = 1


@compiled
def change_phase(w: World, s: Script) -> None:
    """Everybody takes up the next role; after the last phase nobody has one."""
    w.g[at.PHASE] += 1
    for task in range(w.g[at.TASKS]):
        change_role(w, s, task, w.g[at.PHASE])


@compiled
def reschedule(w: World) -> None:
    """CPUs that should look for another task do so."""
    for cpu in range(w.g[at.CPUS]):
        if w.c[cpu, at.RESCHEDULE]:
            schedule(w, cpu)
