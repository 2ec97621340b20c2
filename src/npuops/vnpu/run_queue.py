"""Who gets a core next, and when somebody must leave one. Pure decisions; `cores.py` applies them.

- A higher priority takes the core at the next edge between two steps, and nobody takes it from `REALTIME`.
- Within one priority the tenants take turns: whoever has run for a time slice leaves at the next edge, and the one
  served longest ago is next.
- **Share**: tenants of `NORMAL` that `FOCUS` keeps waiting get a slice in ten among them. `IDLE` runs when nobody else
  would.

As ivpu sets its hardware scheduler up (`ivpu_jsm_hws_setup_priority_bands`): its `normal_band_percentage`, 10, is the
share of the normal band when the focus band starves it, and no other band has such a claim. Its grace periods are not
modelled: they are what a job that must leave may still run for (5 ms, none for realtime), here the rest of its step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from npuops.vnpu.tenancy import Context, Priority

STARVED_SLICES: Final = 9
"""After so many without any of its tenants on a core, `NORMAL` may have the next one before `FOCUS`."""

_BEFORE_FOCUS: Final = (Priority.FOCUS + Priority.REALTIME) / 2


def claim_ns(contexts: Iterable[Context], slice_ns: int) -> float:
    """From when on `NORMAL` may have a core before `FOCUS`; infinity while none of its tenants waits.

    Args:
        contexts: all, also those without a job: whoever was served last counts for the whole band.
        slice_ns: of time.
    """
    normal = [context for context in contexts if context.priority is Priority.NORMAL]
    waiting_ns = [context.waiting_since_ns for context in normal if context.queue]
    if not waiting_ns:
        return math.inf
    return max(min(waiting_ns), *(context.served_ns for context in normal)) + STARVED_SLICES * slice_ns


def next_context(waiting: Iterable[Context], claim: float, now_ns: int) -> Context:
    """Whose turn it is: by priority, then whoever was served longest ago.

    Args:
        waiting: everybody with a job in the queue, at least one.
        claim: as `claim_ns` gives it.
        now_ns: the moment.
    """
    normal = _BEFORE_FOCUS if now_ns >= claim else Priority.NORMAL
    return min(waiting, key=lambda context: _rank(context, normal))


def leave_ns(
    runner: Context,
    since_ns: int,
    claimed: bool,
    waiting: Iterable[Context],
    claim: float,
    now_ns: int,
    slice_ns: int,
) -> int | None:
    """From when on the job on a core must leave it, at the next edge; None if nobody who waits may ask for that.

    Args:
        runner: whose job is on the core.
        since_ns: since when.
        claimed: it is there by the claim of `NORMAL`, so `FOCUS` waits until its slice is over.
        waiting: everybody with a job in the queue.
        claim: as `claim_ns` gives it.
        now_ns: the earliest answer.
        slice_ns: of time, for equals.
    """
    slice_end_ns = since_ns + slice_ns
    moments: list[float] = []
    for context in waiting:
        if context is runner:
            continue
        if context.priority > runner.priority:
            waits = claimed and context.priority is Priority.FOCUS
            moments.append(slice_end_ns if waits else now_ns)
        elif context.priority == runner.priority:
            moments.append(slice_end_ns)
        elif runner.priority is Priority.FOCUS and context.priority is Priority.NORMAL:
            moments.append(max(claim, slice_end_ns))
    return max(int(min(moments)), now_ns) if moments else None


def _rank(context: Context, normal: float) -> tuple[float, int, int]:
    priority = normal if context.priority is Priority.NORMAL else context.priority
    return (-priority, context.served_ns, context.id)
