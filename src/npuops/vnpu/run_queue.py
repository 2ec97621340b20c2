"""Who gets a core next, and when somebody must leave one. Pure decisions; `cores.py` applies them.

- A higher priority takes the core at the next edge between two steps.
- Within one priority the tenants take turns: whoever has run for a time slice leaves at the next edge, and the one
  served longest ago is next.
- **Grace**: a tenant that has waited for `GRACE_NS` gets one time slice against every priority, so each tenant moves
  on by a slice in (grace + slice), whoever else is there. `IDLE` has no grace: it runs when nobody else would.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from npuops.vnpu.tenancy import Context, Priority

GRACE_NS: Final = 50_000_000
"""ivpu's default grace period of the bands between idle and realtime is 50 ms (from memory)."""


def next_context(waiting: Iterable[Context], now_ns: int) -> Context | None:
    """Whose turn it is: starved ones first (the longest wait), then by priority, then the one served longest ago."""
    return min(waiting, key=lambda context: _rank(context, now_ns), default=None)


def is_starved(context: Context, now_ns: int) -> bool:
    """Whether a waiting tenant has a claim to one time slice against every priority."""
    return context.priority is not Priority.IDLE and now_ns >= context.waiting_since_ns + GRACE_NS


def leave_ns(
    runner: Context, since_ns: int, graced: bool, waiting: Iterable[Context], now_ns: int, slice_ns: int
) -> int | None:
    """From when on the job on a core must leave it, at the next edge; None if nobody who waits may ask for that.

    Args:
        runner: whose job is on the core.
        since_ns: since when.
        graced: it is there because it was starved, so higher ones wait until its slice is over.
        waiting: everybody with a job in the queue.
        now_ns: the earliest answer.
        slice_ns: of time, for equals.
    """
    slice_end_ns = since_ns + slice_ns
    moments = []
    for context in waiting:
        if context is runner:
            continue
        if context.priority > runner.priority:
            moments.append(slice_end_ns if graced else now_ns)
        elif context.priority == runner.priority:
            moments.append(slice_end_ns)
        elif context.priority is not Priority.IDLE:
            moments.append(max(context.waiting_since_ns + GRACE_NS, slice_end_ns))
    return max(min(moments), now_ns) if moments else None


def _rank(context: Context, now_ns: int) -> tuple[int, int, int, int]:
    if is_starved(context, now_ns):
        return (0, context.waiting_since_ns, 0, context.id)
    return (1, -context.priority, context.served_ns, context.id)
