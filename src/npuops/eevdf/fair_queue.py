"""One queue of the fair scheduler: virtual time, who is eligible, who is next, and what a sleeper is owed.

Rules of kernel 6.18 (kernel/sched/fair.c), in our own words. Virtual time of an entity runs at 1024 / weight.
"""

from __future__ import annotations

from npuops.eevdf import rules as rule
from npuops.eevdf import world as at
from npuops.eevdf.compiled import compiled
from npuops.eevdf.weights import NICE_0
from npuops.eevdf.world import World


@compiled
def virtual(w: World, entity: int, span_ns: int) -> int:
    """So much CPU time in this entity's virtual time (the kernel's calc_delta_fair)."""
    return int(span_ns * NICE_0 // w.e[entity, at.WEIGHT])


@compiled
def load(w: World, queue: int) -> int:
    """Weights of all in the queue, the running and the delayed ones too."""
    total = 0
    for place in range(at.MEMBERS, at.MEMBERS + w.q[queue, at.NUMBER]):
        total += w.e[w.q[queue, place], at.WEIGHT]
    return int(total)


@compiled
def average(w: World, queue: int) -> int:
    """V: the weighted mean of virtual times, rounded down (avg_vruntime). Sums are relative to one of them."""
    number = w.q[queue, at.NUMBER]
    if number == 0:
        return int(w.q[queue, at.LAST_V])
    zero = w.e[w.q[queue, at.MEMBERS], at.V]
    weights = 0
    moments = 0
    for place in range(at.MEMBERS, at.MEMBERS + number):
        entity = w.q[queue, place]
        weights += w.e[entity, at.WEIGHT]
        moments += w.e[entity, at.WEIGHT] * (w.e[entity, at.V] - zero)
    return int(zero + moments // weights)


@compiled
def eligible(w: World, queue: int, entity: int) -> bool:
    """It has had no more than its share: its virtual time is not past V. Without division, so without rounding."""
    mine = w.e[entity, at.V]
    moments = 0
    for place in range(at.MEMBERS, at.MEMBERS + w.q[queue, at.NUMBER]):
        other = w.q[queue, place]
        moments += w.e[other, at.WEIGHT] * (w.e[other, at.V] - mine)
    return bool(moments >= 0)


@compiled
def least_slice(w: World, queue: int) -> int:
    """The shortest slice in the queue: how long whoever runs is protected, and the slice of the group around it."""
    least = at.NEVER
    for place in range(at.MEMBERS, at.MEMBERS + w.q[queue, at.NUMBER]):
        least = min(least, w.e[w.q[queue, place], at.SLICE])
    return int(least)


@compiled
def longest_slice(w: World, queue: int) -> int:
    """The longest slice in the queue: what somebody there may be owed, or owe, is bounded by it."""
    longest = 0
    for place in range(at.MEMBERS, at.MEMBERS + w.q[queue, at.NUMBER]):
        longest = max(longest, w.e[w.q[queue, place], at.SLICE])
    return int(longest)


@compiled
def earlier(w: World, one: int, other: int) -> bool:
    """One's deadline is before the other's; of equal ones, it has been queued for longer."""
    if w.e[one, at.DEADLINE] != w.e[other, at.DEADLINE]:
        return bool(w.e[one, at.DEADLINE] < w.e[other, at.DEADLINE])
    return bool(w.e[one, at.ORDER] < w.e[other, at.ORDER])


@compiled
def pick(w: World, queue: int, protect: bool) -> int:
    """Who should run: the earliest deadline among the eligible, unless who runs is protected (pick_eevdf)."""
    number = w.q[queue, at.NUMBER]
    if number == 1:
        return int(w.q[queue, at.MEMBERS])
    if w.rules[rule.CFS]:
        return pick_least(w, queue)
    now = average(w, queue)  # v <= floor(V) exactly when v <= V: virtual times are whole
    buddy = w.q[queue, at.BUDDY]
    if buddy >= 0 and w.e[buddy, at.V] <= now:
        return int(buddy)
    current = w.q[queue, at.CURRENT]
    if current >= 0 and w.e[current, at.V] > now:
        current = -1
    if current >= 0 and protect and w.e[current, at.V] < w.e[current, at.PROTECTED]:
        return int(current)
    best = -1
    for place in range(at.MEMBERS, at.MEMBERS + number):
        entity = w.q[queue, place]
        if entity != w.q[queue, at.CURRENT] and w.e[entity, at.V] <= now and (best < 0 or earlier(w, entity, best)):
            best = entity
    if best < 0 or (current >= 0 and w.e[current, at.DEADLINE] < w.e[best, at.DEADLINE]):
        best = current
    return int(best)


@compiled
def pick_least(w: World, queue: int) -> int:
    """CFS: the least virtual time; who runs gives way to an equal."""
    best = -1
    for place in range(at.MEMBERS, at.MEMBERS + w.q[queue, at.NUMBER]):
        entity = w.q[queue, place]
        if best < 0 or w.e[entity, at.V] < w.e[best, at.V]:
            best = entity
        elif w.e[entity, at.V] == w.e[best, at.V]:
            older = w.e[entity, at.ORDER] < w.e[best, at.ORDER]
            if best == w.q[queue, at.CURRENT] or (older and entity != w.q[queue, at.CURRENT]):
                best = entity
    return int(best)


@compiled
def protect_pick(w: World, queue: int, entity: int) -> None:
    """Who was picked keeps the CPU for the least slice in the queue, its own deadline at most (set_protect_slice)."""
    least = least_slice(w, queue) if w.rules[rule.PARITY] else w.rules[rule.SHORTEST_NS]
    until = w.e[entity, at.DEADLINE]
    if least < w.e[entity, at.SLICE]:
        until = min(until, w.e[entity, at.V] + virtual(w, entity, least))
    w.e[entity, at.PROTECTED] = until


@compiled
def note_lag(w: World, queue: int, entity: int) -> None:
    """What it is owed (positive) or owes as it leaves, bounded by the queue's longest slice and a tick more.

    The kernel's update_entity_lag, in 6.18.y since March 2026; before, it was twice its own slice or a tick. A delayed
    one has nothing to gain by sleeping: its debt shrinks, to zero at most (DELAY_ZERO).
    """
    bound = virtual(w, entity, longest_slice(w, queue) + w.rules[rule.TICK_NS])
    lag = max(-bound, min(bound, average(w, queue) - w.e[entity, at.V]))
    if w.e[entity, at.DELAYED]:
        lag = min(max(lag, w.e[entity, at.LAG]), 0)
    w.e[entity, at.LAG] = lag


@compiled
def place(w: World, queue: int, entity: int) -> None:
    """Virtual time and deadline of one that joins (place_entity): as much beside V as it was when it left.

    Its joining moves V towards it; the lag is stretched so that it is right afterwards.
    """
    if w.rules[rule.CFS]:
        place_cfs(w, queue, entity)
        return
    if not w.e[entity, at.OWN_SLICE]:
        w.e[entity, at.SLICE] = w.rules[rule.BASE_SLICE_NS]
    lag = 0
    others = load(w, queue)
    if w.rules[rule.LAG] and others and w.e[entity, at.LAG]:
        product = w.e[entity, at.LAG] * (others + w.e[entity, at.WEIGHT])
        lag = product // others if product >= 0 else -(-product // others)
    w.e[entity, at.V] = average(w, queue) - lag
    if w.e[entity, at.RELATIVE]:
        w.e[entity, at.RELATIVE] = 0
        w.e[entity, at.DEADLINE] += w.e[entity, at.V]
    else:
        w.e[entity, at.DEADLINE] = w.e[entity, at.V] + virtual(w, entity, w.e[entity, at.SLICE])


@compiled
def place_cfs(w: World, queue: int, entity: int) -> None:
    """CFS: a sleeper is half a latency ahead of the queue at most; LAG holds how far behind the queue it left."""
    floor = w.q[queue, at.LAST_V]
    v = floor + w.e[entity, at.LAG] if w.e[entity, at.RELATIVE] else w.e[entity, at.V]
    w.e[entity, at.RELATIVE] = 0
    w.e[entity, at.V] = max(v, floor - w.rules[rule.CFS_LATENCY_NS] // 2)
    w.e[entity, at.DEADLINE] = w.e[entity, at.V]


@compiled
def raise_floor(w: World, queue: int) -> None:
    """CFS: the least virtual time of the queue, which never falls (min_vruntime)."""
    least = at.NEVER
    for place_ in range(at.MEMBERS, at.MEMBERS + w.q[queue, at.NUMBER]):
        least = min(least, w.e[w.q[queue, place_], at.V])
    if least < at.NEVER:
        w.q[queue, at.LAST_V] = max(w.q[queue, at.LAST_V], least)


@compiled
def charge(w: World, queue: int) -> None:
    """Book what the running one has had, renew its request when that is served, ask for another pick (update_curr).

    Only here can the running one lose the CPU, and this runs at ticks, arrivals and departures only.
    """
    entity = w.q[queue, at.CURRENT]
    if entity < 0:
        return
    span = w.g[at.NOW] - w.e[entity, at.CHARGED_AT]
    if span <= 0:
        return
    w.e[entity, at.CHARGED_AT] = w.g[at.NOW]
    w.e[entity, at.RUN] += span
    w.e[entity, at.V] += virtual(w, entity, span)
    host = w.q[queue, at.HOST]
    if w.q[queue, at.GROUP] < 0:
        w.c[host, at.SERVER_LEFT] -= span
    if w.rules[rule.CFS]:
        raise_floor(w, queue)
        return
    renewed = w.e[entity, at.V] >= w.e[entity, at.DEADLINE]
    if renewed:
        if not w.e[entity, at.OWN_SLICE]:
            w.e[entity, at.SLICE] = w.rules[rule.BASE_SLICE_NS]
        w.e[entity, at.DEADLINE] = w.e[entity, at.V] + virtual(w, entity, w.e[entity, at.SLICE])
    if w.q[queue, at.NUMBER] > 1 and (renewed or w.e[entity, at.V] >= w.e[entity, at.PROTECTED]):
        w.c[host, at.RESCHEDULE] = 1
