"""Tasks and groups join and leave the queues of the fair scheduler, level by level."""

from __future__ import annotations

from npuops.eevdf import rules as rule
from npuops.eevdf import world as at
from npuops.eevdf.compiled import compiled
from npuops.eevdf.fair_queue import average, charge, eligible, least_slice, load, note_lag, place, protect_pick
from npuops.eevdf.world import World


@compiled
def insert(w: World, queue: int, entity: int) -> None:
    """Into the queue's table; among equal deadlines it is the youngest."""
    w.q[queue, at.MEMBERS + w.q[queue, at.NUMBER]] = entity
    w.q[queue, at.NUMBER] += 1
    w.e[entity, at.QUEUED] = 1
    rank(w, entity)


@compiled
def rank(w: World, entity: int) -> None:
    """It is the youngest in its queue now."""
    w.g[at.COUNT] += 1
    w.e[entity, at.ORDER] = w.g[at.COUNT]


@compiled
def remove(w: World, queue: int, entity: int) -> None:
    """Out of the queue's table; if it ran, nobody does."""
    w.q[queue, at.LAST_V] = w.q[queue, at.LAST_V] if w.rules[rule.CFS] else average(w, queue)
    last = at.MEMBERS + w.q[queue, at.NUMBER] - 1
    for position in range(at.MEMBERS, last):
        if w.q[queue, position] == entity:
            w.q[queue, position] = w.q[queue, last]
    w.q[queue, at.NUMBER] -= 1
    w.e[entity, at.QUEUED] = 0
    w.e[entity, at.DELAYED] = 0
    if w.q[queue, at.CURRENT] == entity:
        w.q[queue, at.CURRENT] = -1


@compiled
def join(w: World, queue: int, entity: int) -> None:
    """One level of a wake-up (enqueue_entity)."""
    charge(w, queue)
    place(w, queue, entity)
    insert(w, queue, entity)


@compiled
def leave(w: World, queue: int, entity: int, sleeps: bool) -> bool:
    """One level of a departure (dequeue_entity). False: it is ahead of its share, sleeps, and stays until picked."""
    charge(w, queue)
    if w.q[queue, at.BUDDY] == entity:
        w.q[queue, at.BUDDY] = -1
    if w.rules[rule.CFS]:
        if not sleeps:
            w.e[entity, at.LAG] = w.e[entity, at.V] - w.q[queue, at.LAST_V]
            w.e[entity, at.RELATIVE] = 1
        remove(w, queue, entity)
        return True
    stays = sleeps and not w.e[entity, at.DELAYED] and w.rules[rule.DELAY] and not eligible(w, queue, entity)
    note_lag(w, queue, entity)
    if stays:
        w.e[entity, at.DELAYED] = 1
        return False
    if not sleeps and w.rules[rule.RELATIVE]:
        w.e[entity, at.DEADLINE] -= w.e[entity, at.V]
        w.e[entity, at.RELATIVE] = 1
    remove(w, queue, entity)
    return True


@compiled
def rejoin(w: World, queue: int, entity: int) -> None:
    """A delayed one wakes (requeue_delayed_entity): if its debt is paid it is placed anew, with no gain and no loss."""
    note_lag(w, queue, entity)
    if average(w, queue) > w.e[entity, at.V]:
        was = w.q[queue, at.CURRENT]
        remove(w, queue, entity)
        w.e[entity, at.LAG] = 0
        place(w, queue, entity)
        insert(w, queue, entity)
        w.q[queue, at.CURRENT] = was
    w.e[entity, at.DELAYED] = 0


@compiled
def shorten_groups(w: World, queue: int) -> None:
    """A group's slice is the shortest within it; its weight is its session's, by this CPU's part of the session."""
    group = w.q[queue, at.GROUP]
    if group < 0 or w.q[queue, at.NUMBER] == 0:
        return
    w.e[group, at.OWN_SLICE] = 1
    w.e[group, at.SLICE] = least_slice(w, queue)
    if w.g[at.CPUS] > 1:
        weigh_group(w, group)


@compiled
def weigh_group(w: World, group: int) -> None:
    """A session's weight is split among CPUs as its load is; by what is queued now, where the kernel uses a mean."""
    session = w.e[group, at.SESSION]
    total = 0
    first = w.g[at.CPUS] * (1 + session)
    for queue in range(first, first + w.g[at.CPUS]):
        total += load(w, queue)
    if total:
        share = w.e[group, at.PRIORITY] * load(w, w.e[group, at.BELOW]) // total
        reweigh(w, group, max(2, share))


@compiled
def reweigh(w: World, entity: int, weight: int) -> None:
    """Another weight (reweight_entity): lag and what is left of the request keep their worth in CPU time."""
    old = w.e[entity, at.WEIGHT]
    if old == weight:
        return
    queue = w.e[entity, at.QUEUE]
    queued = w.e[entity, at.QUEUED]
    runs, delayed = False, 0
    if queued:
        runs = w.q[queue, at.CURRENT] == entity
        delayed = w.e[entity, at.DELAYED]
        charge(w, queue)
        note_lag(w, queue, entity)
        w.e[entity, at.DEADLINE] -= w.e[entity, at.V]
        w.e[entity, at.PROTECTED] -= w.e[entity, at.V]
        w.e[entity, at.RELATIVE] = 1
        remove(w, queue, entity)
    lag = w.e[entity, at.LAG] * old
    w.e[entity, at.LAG] = lag // weight if lag >= 0 else -(-lag // weight)
    if w.e[entity, at.RELATIVE]:
        w.e[entity, at.DEADLINE] = w.e[entity, at.DEADLINE] * old // weight
    w.e[entity, at.WEIGHT] = weight
    if queued:
        place(w, queue, entity)
        w.e[entity, at.PROTECTED] = w.e[entity, at.V] + w.e[entity, at.PROTECTED] * old // weight
        insert(w, queue, entity)
        w.e[entity, at.DELAYED] = delayed
        if runs:
            w.q[queue, at.CURRENT] = entity


@compiled
def queue_of(w: World, task: int, cpu: int) -> int:
    """Where this task queues on this CPU: in its session's group, or at the root."""
    if w.g[at.SESSIONS]:
        return int(w.g[at.CPUS] * (1 + w.e[task, at.SESSION]) + cpu)
    return int(cpu)


@compiled
def enqueue(w: World, task: int, cpu: int) -> None:
    """A task of the fair class joins this CPU (enqueue_task_fair), and its group with it."""
    queue = queue_of(w, task, cpu)
    if w.rules[rule.CFS] and w.e[task, at.QUEUE] != queue and not w.e[task, at.RELATIVE]:
        w.e[task, at.LAG] = w.e[task, at.V] - w.q[w.e[task, at.QUEUE], at.LAST_V]
        w.e[task, at.RELATIVE] = 1
    w.e[task, at.CPU] = cpu
    w.e[task, at.QUEUE] = queue
    entity = task
    while True:
        if w.e[entity, at.QUEUED]:
            if w.e[entity, at.DELAYED]:
                rejoin(w, queue, entity)
        else:
            join(w, queue, entity)
        shorten_groups(w, queue)
        entity = w.q[queue, at.GROUP]
        if entity < 0:
            return
        queue = w.e[entity, at.QUEUE]


@compiled
def dequeue(w: World, task: int, sleeps: bool) -> bool:
    """A task or delayed group leaves, and every group that it leaves empty (dequeue_entities). False: it is delayed."""
    entity = task
    while True:
        queue = w.e[entity, at.QUEUE]
        if not leave(w, queue, entity, sleeps):
            return bool(entity != task)
        if w.q[queue, at.NUMBER] == 0:
            entity = w.q[queue, at.GROUP]
            if entity < 0 or not w.e[entity, at.QUEUED]:
                return True
            continue
        shorten_groups(w, queue)
        group = w.q[queue, at.GROUP]
        if group >= 0 and sleeps and w.rules[rule.BUDDY]:
            w.q[w.e[group, at.QUEUE], at.BUDDY] = group
        return True


@compiled
def start(w: World, queue: int, entity: int) -> None:
    """It was picked, and runs from now on."""
    resume(w, queue, entity)
    protect_pick(w, queue, entity)


@compiled
def resume(w: World, queue: int, entity: int) -> None:
    """It runs from now on (set_next_entity); picked by nobody, it is protected no longer than it was."""
    if w.q[queue, at.BUDDY] == entity:
        w.q[queue, at.BUDDY] = -1
    w.q[queue, at.CURRENT] = entity
    w.e[entity, at.CHARGED_AT] = w.g[at.NOW]
    w.e[entity, at.RUN_AT_PICK] = w.e[entity, at.RUN]


@compiled
def stop(w: World, queue: int, entity: int) -> None:
    """It runs no more, and waits or is delayed (put_prev_entity)."""
    if w.e[entity, at.QUEUED]:
        charge(w, queue)
        rank(w, entity)
    w.q[queue, at.CURRENT] = -1
