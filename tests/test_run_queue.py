"""Who gets a core next, and when somebody must leave one."""

from __future__ import annotations

import math
from collections import deque

import pytest

from made_machine import program
from npuops.vnpu.run_queue import STARVED_SLICES, claim_ns, leave_ns, next_context
from npuops.vnpu.tenancy import Context, Job, Loaded, Priority

SLICE = 2_000_000
NOW = 1_000_000_000
STARVED = STARVED_SLICES * SLICE


def tenant(number: int, priority: Priority, *, waited_ns: int | None = 0, served_ns: int = 0) -> Context:
    """`waited_ns` None: nothing in its queue."""
    made = Context(id=number, pid=number, priority=priority, served_ns=served_ns)
    if waited_ns is not None:
        made.waiting_since_ns = NOW - waited_ns
        loaded = Loaded(program(), ())
        made.queue = deque(
            [Job(id=1, context=made, loaded=loaded, submitted_ns=NOW - waited_ns, canary=False, buffers=None)]
        )
    return made


def test_the_highest_priority_is_next_and_among_equals_the_one_served_longest_ago() -> None:
    low = tenant(1, Priority.NORMAL)
    recent, long_ago = tenant(2, Priority.FOCUS, served_ns=9), tenant(3, Priority.FOCUS, served_ns=5)
    assert next_context([low, recent, long_ago], math.inf, NOW) is long_ago


def test_a_claim_of_normal_goes_before_focus_and_never_before_realtime() -> None:
    normal, focus, realtime = (tenant(n, p) for n, p in enumerate(list(Priority)[1:], 1))
    assert next_context([focus, normal], NOW + 1, NOW) is focus
    assert next_context([focus, normal], NOW, NOW) is normal
    assert next_context([focus, normal, realtime], NOW, NOW) is realtime


def test_the_claim_is_the_bands_and_comes_nine_slices_after_any_of_it_was_served() -> None:
    long_ago = tenant(1, Priority.NORMAL, waited_ns=STARVED)
    assert claim_ns([long_ago], SLICE) == NOW
    assert claim_ns([long_ago, tenant(2, Priority.NORMAL, waited_ns=5)], SLICE) == NOW
    assert claim_ns([long_ago, tenant(2, Priority.NORMAL, waited_ns=None, served_ns=NOW)], SLICE) == NOW + STARVED
    others = [tenant(2, priority, waited_ns=2 * STARVED) for priority in Priority if priority is not Priority.NORMAL]
    assert claim_ns([tenant(1, Priority.NORMAL, waited_ns=None), *others], SLICE) == math.inf


@pytest.mark.parametrize(
    ("runs", "waiter", "claimed", "claim", "leaves_after"),
    [
        (Priority.FOCUS, Priority.REALTIME, False, math.inf, 0),
        (Priority.FOCUS, Priority.FOCUS, False, math.inf, SLICE),
        (Priority.FOCUS, Priority.NORMAL, False, NOW + STARVED, STARVED),
        (Priority.FOCUS, Priority.NORMAL, False, NOW - STARVED, SLICE),
        (Priority.FOCUS, Priority.IDLE, False, math.inf, None),
        (Priority.REALTIME, Priority.NORMAL, False, NOW - STARVED, None),
        (Priority.REALTIME, Priority.FOCUS, False, math.inf, None),
        (Priority.NORMAL, Priority.FOCUS, False, math.inf, 0),
        (Priority.NORMAL, Priority.FOCUS, True, math.inf, SLICE),
        (Priority.NORMAL, Priority.REALTIME, True, math.inf, 0),
        (Priority.NORMAL, Priority.IDLE, False, math.inf, None),
    ],
)
def test_when_a_job_must_leave_its_core(
    runs: Priority, waiter: Priority, claimed: bool, claim: float, leaves_after: int | None
) -> None:
    runner, waits = tenant(1, runs), tenant(2, waiter)
    found = leave_ns(runner, NOW, claimed, [runner, waits], claim, NOW, SLICE)
    assert found == (None if leaves_after is None else NOW + leaves_after)


def test_nobody_leaves_in_the_past_or_for_its_own_next_job() -> None:
    runner = tenant(1, Priority.NORMAL)
    later = NOW + 5 * SLICE
    assert leave_ns(runner, NOW, False, [tenant(2, Priority.NORMAL)], math.inf, later, SLICE) == later
    assert leave_ns(runner, NOW, False, [runner], math.inf, NOW, SLICE) is None
