"""When requests are due: schedules of an open loop, and the order in which tenants and inputs take turns."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import OptionError

MOST_ARRIVALS: Final = 20_000_000
"""160 MB of instants."""
ORDER_LENGTH: Final = 8192
"""Turns before a closed loop begins its order again."""


class Arrivals(StrEnum):
    """How the instants of an open loop are spread."""

    POISSON = "poisson"
    """Independent users: gaps are exponential, so bursts happen."""
    CONSTANT = "constant"
    """A metronome: a camera, a cron job."""


def schedule(rate: float, seconds: float, kind: Arrivals, seed: int) -> NDArray[np.float64]:
    """Instants at which requests are due, ascending, in seconds from 0 to below `seconds`.

    Args:
        rate: requests in a second, on average.
        seconds: length of the schedule.
        kind: the spread.
        seed: of the gaps; the same seed gives the same instants.

    Raises:
        OptionError: more than `MOST_ARRIVALS`.
    """
    expected = rate * seconds
    if expected > MOST_ARRIVALS:
        raise OptionError(
            f"{rate:g} requests/s for {seconds:g} s are {expected:.3g} requests; at most {MOST_ARRIVALS} fit",
            advice="shorten --duration",
        )
    if kind is Arrivals.CONSTANT:
        return np.arange(int(np.ceil(expected - 1e-9)), dtype=np.float64) / rate
    generator = np.random.default_rng(seed)
    # Six sigma beyond the mean; in the one case of a billion that falls short, the tail is drawn again.
    draw = int(expected + 6 * np.sqrt(expected) + 16)
    instants = np.cumsum(generator.exponential(1 / rate, draw))
    while instants[-1] < seconds:
        instants = np.concatenate([instants, instants[-1] + np.cumsum(generator.exponential(1 / rate, draw))])
    return instants[: int(np.searchsorted(instants, seconds, side="left"))]


def turns(weights: Sequence[float], inputs: int, length: int, seed: int) -> NDArray[np.int32]:
    """Which request goes at which turn: `tenant * inputs + input`, tenants by weight, inputs evenly.

    Args:
        weights: of each tenant; only their proportions count.
        inputs: distinct inputs of each tenant.
        length: turns to draw.
        seed: the same seed gives the same order.
    """
    generator = np.random.default_rng([seed, 1])
    shares = np.asarray(weights, np.float64)
    tenants = generator.choice(len(shares), length, p=shares / shares.sum())
    return (tenants * inputs + generator.integers(0, inputs, length)).astype(np.int32)
