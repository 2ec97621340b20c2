"""Who gets a core next, and when somebody must leave one."""

from __future__ import annotations

import pytest

from npuops.vnpu.run_queue import GRACE_NS, is_starved, leave_ns, next_context
from npuops.vnpu.tenancy import Context, Priority

SLICE = 2_000_000
NOW = 1_000_000_000


def tenant(number: int, priority: Priority, *, waited_ns: int = 0, served_ns: int = 0) -> Context:
    return Context(id=number, pid=number, priority=priority, waiting_since_ns=NOW - waited_ns, served_ns=served_ns)


def test_the_highest_priority_is_next_and_among_equals_the_one_served_longest_ago() -> None:
    low = tenant(1, Priority.NORMAL)
    recent, long_ago = tenant(2, Priority.FOCUS, served_ns=9), tenant(3, Priority.FOCUS, served_ns=5)
    assert next_context([low, recent, long_ago], NOW) is long_ago
    assert next_context([], NOW) is None


def test_who_has_starved_is_next_whatever_the_others_are_but_idle_never_starves() -> None:
    starved = tenant(1, Priority.NORMAL, waited_ns=GRACE_NS)
    idle = tenant(2, Priority.IDLE, waited_ns=100 * GRACE_NS)
    realtime = tenant(3, Priority.REALTIME)
    assert next_context([realtime, idle, starved], NOW) is starved
    assert next_context([realtime, idle], NOW) is realtime
    assert not is_starved(idle, NOW)


@pytest.mark.parametrize(
    ("waiter", "graced", "leaves_after"),
    [
        (tenant(2, Priority.REALTIME), False, 0),
        (tenant(2, Priority.REALTIME), True, SLICE),
        (tenant(2, Priority.FOCUS), False, SLICE),
        (tenant(2, Priority.NORMAL), False, GRACE_NS),
        (tenant(2, Priority.NORMAL, waited_ns=2 * GRACE_NS), False, SLICE),
        (tenant(2, Priority.IDLE, waited_ns=2 * GRACE_NS), False, None),
    ],
)
def test_a_job_leaves_for_higher_ones_at_once_for_equals_after_a_slice_for_starved_ones_later(
    waiter: Context, graced: bool, leaves_after: int | None
) -> None:
    runner = tenant(1, Priority.FOCUS)
    found = leave_ns(runner, NOW, graced, [runner, waiter], NOW, SLICE)
    assert found == (None if leaves_after is None else NOW + leaves_after)


def test_nobody_leaves_in_the_past_or_for_its_own_next_job() -> None:
    runner = tenant(1, Priority.NORMAL)
    assert leave_ns(runner, NOW, False, [tenant(2, Priority.NORMAL)], NOW + 5 * SLICE, SLICE) == NOW + 5 * SLICE
    assert leave_ns(runner, NOW, False, [runner], NOW, SLICE) is None
