"""What the tasks do: steps of work, sleeps, arrivals, bytes from hand to hand, and the change of roles at a phase."""

from __future__ import annotations

from typing import Final

from npuops.eevdf import world as at
from npuops.eevdf.balance import place_above, place_wake
from npuops.eevdf.compiled import compiled
from npuops.eevdf.dispatch import sleep, wake
from npuops.eevdf.reservation import above_fair
from npuops.eevdf.world import Script, World

NOTICE_NS: Final = 1_000
"""Until a task that runs has seen that its role changed."""
CALL_NS: Final = 700
"""From the byte written to the read that may find one: a task that was preempted in between may find the answer."""
TALK_NS: Final = 1_900
"""What a turn costs besides its work: byte read, peer woken. Measured: 34.1 us of CPU time for a turn of 30 us, of
which 1.5 us are the switch and 0.7 us the call above."""
DRAWS: Final = 4096
"""Entries of `Script.gaps`."""


@compiled
def draw_gap(w: World, s: Script, task: int) -> int:
    """How long it sleeps between bursts; every task draws from a stream of its own (minimal standard generator)."""
    gap = w.e[task, at.GAP]
    if w.e[task, at.PERIODIC]:
        return int(gap)
    w.e[task, at.CHANCE] = w.e[task, at.CHANCE] * 48_271 % 2_147_483_647
    return int(gap * s.gaps[w.e[task, at.CHANCE] % DRAWS] >> 16)


@compiled
def work_on(w: World, task: int, step: int, span_ns: int) -> None:
    """Its next step takes so much CPU time."""
    w.e[task, at.STEP] = step
    w.e[task, at.LEFT] = span_ns


@compiled
def rest(w: World, task: int, moment_ns: int) -> None:
    """It runs, and sleeps until this moment."""
    w.e[task, at.STEP] = at.NOTHING
    w.e[task, at.TIMER] = moment_ns
    sleep(w, task)


@compiled
def take_request(w: World, task: int) -> None:
    """The next one that arrived is worked on."""
    w.e[task, at.REQUEST] = w.e[task, at.NEXT]
    w.e[task, at.NEXT] += 1
    work_on(w, task, at.SERVING, w.e[task, at.WORK])


@compiled
def next_arrival(w: World, s: Script, task: int) -> int:
    """When its next request arrives, or arrived; `NEVER` after the last."""
    place = w.e[task, at.NEXT]
    return int(s.arrivals[place]) if place < s.first[task + 1] else at.NEVER


@compiled
def serve(w: World, s: Script, task: int) -> None:
    """It runs: the backlog without sleep between, otherwise it waits for the next arrival."""
    arrival = next_arrival(w, s, task)
    if arrival <= w.g[at.NOW]:
        take_request(w, task)
    else:
        rest(w, task, arrival)


@compiled
def receive(w: World, task: int) -> None:
    """It reads from its pipe: the byte, or it sleeps until one is written."""
    if w.e[task, at.TOKENS] > 0:
        w.e[task, at.TOKENS] -= 1
        work_on(w, task, at.TURN, w.e[task, at.WORK] + TALK_NS)
    else:
        rest(w, task, at.NEVER)


@compiled
def begin(w: World, s: Script, task: int) -> None:
    """It runs, has seen its new role, and takes it up. The first of a pair has the byte."""
    w.e[task, at.CHANGED] = 0
    doing = w.e[task, at.DOING]
    if doing == at.SERVE:
        serve(w, s, task)
    elif doing == at.COMPUTE or doing == at.SCAN:  # noqa: PLR1714 - numba has no constant sets
        work_on(w, task, at.ENDLESS, at.NEVER)
    elif doing == at.CYCLE:
        work_on(w, task, at.BURST, w.e[task, at.WORK])
    elif doing == at.PIPE:
        w.e[task, at.TOKENS] += 1 if task < w.e[task, at.PEER] else 0
        receive(w, task)
    else:
        rest(w, task, at.NEVER)


@compiled
def finish(w: World, s: Script, task: int) -> None:
    """The step of a running task is done: what it does next."""
    step = w.e[task, at.STEP]
    if step == at.SERVING:
        s.done[w.e[task, at.REQUEST]] = w.g[at.NOW]
    if w.e[task, at.CHANGED]:
        begin(w, s, task)
    elif step == at.SERVING:
        serve(w, s, task)
    elif step == at.LINE:
        end_line(w, s, task)
    elif step == at.BURST:
        rest(w, task, w.g[at.NOW] + draw_gap(w, s, task))
    elif step == at.TURN:
        w.e[task, at.PROGRESS] += 1
        work_on(w, task, at.READ, CALL_NS)
        send(w, task)
    else:
        receive(w, task)


@compiled
def send(w: World, task: int) -> None:
    """A byte for its peer, which wakes if it waits for one."""
    peer = w.e[task, at.PEER]
    w.e[peer, at.TOKENS] += 1
    if not w.e[peer, at.AWAKE] and w.e[peer, at.STEP] == at.NOTHING:
        w.e[peer, at.TOKENS] -= 1
        work_on(w, peer, at.TURN, w.e[peer, at.WORK] + TALK_NS)
        rouse(w, peer, w.e[task, at.CPU])


@compiled
def next_line(w: World, s: Script, task: int) -> None:
    """It works on the next line of its part."""
    span = s.parts[w.e[task, at.NEXT], 0]
    w.e[task, at.NEXT] += 1
    work_on(w, task, at.ENDLESS if span >= at.NEVER else at.LINE, span)


@compiled
def end_line(w: World, s: Script, task: int) -> None:
    """It runs, and the work of a line of its part is done. A moment that is over is no sleep, as with a backlog."""
    line = w.e[task, at.NEXT] - 1
    then, what = s.parts[line, 1], s.parts[line, 2]
    if then == at.WAKE:
        next_line(w, s, task)
        call(w, s, what, w.e[task, at.CPU])
    elif then == at.SPAN:
        rest(w, task, w.g[at.NOW] + what)
    elif then == at.UNTIL and what > w.g[at.NOW]:
        rest(w, task, what)
    elif then == at.EXIT or (then == at.CALL and w.e[task, at.TOKENS] == 0):
        rest(w, task, at.NEVER)
    else:
        w.e[task, at.TOKENS] -= 1 if then == at.CALL else 0
        next_line(w, s, task)


@compiled
def call(w: World, s: Script, task: int, waker: int) -> None:
    """Wakes a task that sleeps until a call; one that does not yet will not sleep then."""
    if w.e[task, at.STEP] == at.NOTHING and s.parts[w.e[task, at.NEXT] - 1, 1] == at.CALL:
        next_line(w, s, task)
        rouse(w, task, waker)
    else:
        w.e[task, at.TOKENS] += 1


@compiled
def rouse(w: World, task: int, waker: int) -> None:
    """It wakes where the kernel would place it."""
    w.e[task, at.TIMER] = at.NEVER
    wake(w, task, place_above(w, task) if above_fair(w, task) else place_wake(w, task, waker))


@compiled
def ring(w: World, s: Script, task: int) -> None:
    """Its timer: a request arrived, or its sleep is over."""
    if w.e[task, at.DOING] == at.SERVE:
        take_request(w, task)
    elif w.e[task, at.DOING] == at.ACT:
        next_line(w, s, task)
    else:
        work_on(w, task, at.BURST, w.e[task, at.WORK])
    rouse(w, task, -1)


@compiled
def change_role(w: World, s: Script, task: int, phase: int) -> None:
    """A phase begins. A request being served is finished, the backlog of a role that ends is dropped."""
    was = w.e[task, at.DOING]
    same = True
    for place in range(4):
        same = same and w.e[task, at.DOING + place] == s.acts[phase, task, place]
        w.e[task, at.DOING + place] = s.acts[phase, task, place]
    if same or (was == w.e[task, at.DOING] and (was == at.SERVE or was == at.PIPE)):  # noqa: PLR1714 - see above
        return
    w.e[task, at.TOKENS] = 0
    w.e[task, at.TIMER] = at.NEVER
    doing = w.e[task, at.DOING]
    if doing == at.SERVE:
        while next_arrival(w, s, task) < s.starts[phase]:
            w.e[task, at.NEXT] += 1
    if w.e[task, at.AWAKE]:
        w.e[task, at.CHANGED] = 1
        begun = w.e[task, at.STEP] == at.SERVING and w.e[task, at.LEFT] < s.acts[max(phase - 1, 0), task, 1]
        if not begun:
            work_on(w, task, at.NOTICE, NOTICE_NS)
    elif doing == at.SERVE:
        w.e[task, at.TIMER] = next_arrival(w, s, task)
    elif doing == at.ACT:
        w.e[task, at.TIMER] = s.parts[w.e[task, at.NEXT], 2]
        w.e[task, at.NEXT] += 1
    elif doing != at.REST:
        w.e[task, at.CHANGED] = 1
        work_on(w, task, at.NOTICE, NOTICE_NS)
        rouse(w, task, -1)
