"""How long a run that is under way is waited for. Pure.

A run that takes longer than any before may be stuck, or slow (heat, neighbours, a busy host). Nobody can tell these
apart from outside; but to wait is free only while another device could still answer in time.
"""

from __future__ import annotations

from typing import Final

OVERDUE: Final = 10.0
"""Times its predicted length after which a run may be stuck."""
LEAST_US: Final = 100_000.0
"""A shorter delay is no sign of anything: schedulers of busy hosts, and garbage collectors, take as long."""
MARGIN_US: Final = 250_000.0
"""Ending the worker, and dispatching anew, must fit into it, on a busy host; deadlines are looked at every 20 ms."""
WEIGHT: Final = 0.1
"""Of the latest run in the device's pace: ten runs are enough to see a throttled device."""
REST: Final = 0.02
OUTLIER: Final = 4.0
"""Times the pace up to which one run counts: a single one that was stuck says nothing about the next."""


def left_us(predicted_us: float, taken_us: float) -> float:
    """Of a run that has taken so long; one that is overdue is expected to take as long again as it is late."""
    return abs(predicted_us - taken_us)


def followed(pace: float, predicted_us: float, took_us: float) -> float:
    """The pace of a device after another run: 1 is that of its curve, 2 is half as fast."""
    if predicted_us <= 0:
        return pace
    return pace + WEIGHT * (min(took_us / predicted_us, OUTLIER * pace) - pace)


def rested(pace: float) -> float:
    """The pace of a device after a look (every 20 ms) at which it had nothing to do: half of what it was late, or
    early, is forgotten in 0.7 s. Who is believed to be too slow gets nothing to do, and could never prove otherwise.
    """
    return pace + REST * (1.0 - pace)


def is_overdue(predicted_us: float, taken_us: float) -> bool:
    """Whether a run may be stuck."""
    return taken_us > max(LEAST_US, OVERDUE * predicted_us)


def must_move(left_until_deadline_us: float, elsewhere_us: float) -> bool:
    """Whether a request of an overdue run has to be given to another device now, to be answered there in time.

    Args:
        left_until_deadline_us: of the most urgent request.
        elsewhere_us: that it takes on the other device.
    """
    return 0 < left_until_deadline_us - elsewhere_us <= MARGIN_US + elsewhere_us
