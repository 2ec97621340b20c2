"""How many of the waiting rows the next run gets. There is no delay to tune: a device that is free never waits."""

from __future__ import annotations

from typing import Final

from npuops.runtime.batch_curve import BatchCurve

LEAD_US: Final = 1_500.0
"""So long before the end of a run the next one is prepared: an event loop's timer (1 ms) and the copies fit in."""


def rows_to_take(
    waiting_rows: int,
    next_rows: int,
    in_flight: int,
    credits: int,  # noqa: A002 - the flow control's word; nobody misses the interpreter's credits here
    curve: BatchCurve,
    budget_us: float,
    max_rows: int,
    remaining_us: float = 0.0,
) -> int:
    """Rows of the next run; 0: better wait for more.

    The *useful* batch is the size whose rows cost least within the latency budget, 1 where batching does not pay.

    - **Nothing under way**: what waits goes at once, up to the useful batch. So a lone request is never delayed, and
      under load the batches grow by themselves, to what arrives during a run.
    - **A run under way**: the next one is prepared beside it, so that the device goes on without a pause; but only when
      at least half of a useful batch waits, or the first request alone has so many rows. Sent earlier it would be a
      small run that those behind it could not share; and little is lost by keeping it, since the end of the run under
      way lets it go. And not sooner than `LEAD_US` before that end: what has left the queue, nobody can overtake, so a
      prepared run costs whoever comes next, of whatever tenant and class, its whole length.
    - Where static artifacts would be filled up, and several runs are faster, it is the first of these.
    - Never more than the useful batch, but for the rows of the first request, which cannot be divided.

    Args:
        waiting_rows: of all that wait.
        next_rows: of the one whose turn it is.
        in_flight: runs that the device has.
        credits: runs that it takes besides.
        curve: of the device.
        budget_us: longest run that batching may make.
        max_rows: of one run.
        remaining_us: until the runs that the device has are done. Where that is more than `LEAD_US`, ask again then.
    """
    if waiting_rows <= 0 or credits <= 0:
        return 0
    useful = min(curve.best_rows(budget_us), max_rows)
    ready = max(next_rows, min(waiting_rows, useful))
    if in_flight and (remaining_us > LEAD_US or 2 * ready < useful):
        return 0
    return max(next_rows, curve.first_rows(ready))
