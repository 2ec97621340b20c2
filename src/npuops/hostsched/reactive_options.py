"""Every threshold of the reactive rule, with its bounds: what a tuner may turn, and nothing else.

As a vector each number lies in 0 to 1 between its bounds, on a logarithmic scale for times and rates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.config import load_options
from npuops.errors import OptionError


@dataclass(frozen=True, slots=True)
class Bound:
    """Of one number.

    Attributes:
        low: the least.
        high: the most.
        log: equal steps of the vector are equal factors of the number.
    """

    low: float
    high: float
    log: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ReactiveOptions:
    """What the rule takes for interactive, for a hog, for trouble, and how long it waits.

    Attributes:
        rate_us: shares and rates are decaying means over so long.
        sleep_burst_us: a task that works no longer than this between two sleeps is interactive.
        hog_burst_us: one that works longer than this without a sleep is a hog.
        debt_gain: of the time that a task had to wait since its last sleep, so much more work is forgiven: it may
            only be catching up.
        debt_cap_us: at most so much.
        credit_gain: for so much of the time in which a task looked interactive, it may compute later and still be taken
            for it: a server that works off a queue looks like a hog.
        credit_cap_us: at most so much.
        quiet_us: a task that left the CPU by itself and did nothing for so long sleeps.
        probe_us: a hog is put to normal for so long, to see whether it only starved.
        backoff_us: so long after it became a hog for the first time,
        backoff_growth: after each probe in vain so many times longer,
        backoff_cap_us: at most so long.
        probe_gap_us: between two probes of whatever tasks.
        present_share: an interactive task that runs so much of the time is there; a lesser one may as well wait.
        release_us: hogs stay lowered for so long after the last one was there.
        miss_us: the share of late answers is taken over so long.
        boost_missing: a task with an SLO is boosted from this share of late answers on (0: whenever it is active).
        boost_wait_us: an interactive task is boosted when it waits so long for a turn.
        boost_share: but not one that takes more than this of a CPU.
        reserve_missing: a task with an SLO gets a reservation from this share of late answers on (0: as above).
        reserve_margin: the reservation must be so many times what it ran.
        demote_missing: while all that are there have an SLO, hogs are lowered from this share of late answers on.
        idle_missing: and are idle instead of demoted from this one on.
        urgent_slack: a request with less than this part of its SLO left is as bad as a late one.
        calm_us: what was done against late answers is kept for so long after the last.
        floor_share: a lowered task that got less than this part of an equal share is left at normal until it has more.
        fair_us: over so long.
        chatty_per_s: a task that nobody told about and that sleeps more often than this is chatter between processes,
            and lowered like a hog. At its upper bound this is off: a busy server may look the same.
        chatty_share: if it also takes so much of a CPU.
    """

    rate_us: float = 200_000.0
    sleep_burst_us: float = 2_500.0
    hog_burst_us: float = 5_000.0
    debt_gain: float = 0.3
    debt_cap_us: float = 10_000.0
    credit_gain: float = 0.25
    credit_cap_us: float = 15_000.0
    quiet_us: float = 30_000.0
    probe_us: float = 12_000.0
    backoff_us: float = 100_000.0
    backoff_growth: float = 2.0
    backoff_cap_us: float = 2_000_000.0
    probe_gap_us: float = 30_000.0
    present_share: float = 0.002
    release_us: float = 500_000.0
    miss_us: float = 200_000.0
    boost_missing: float = 0.01
    boost_wait_us: float = 500.0
    boost_share: float = 0.6
    reserve_missing: float = 0.03
    reserve_margin: float = 1.5
    demote_missing: float = 0.0
    idle_missing: float = 0.05
    urgent_slack: float = 0.25
    calm_us: float = 500_000.0
    floor_share: float = 0.5
    fair_us: float = 1_000_000.0
    chatty_per_s: float = 50_000.0
    chatty_share: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what the tuner could not have found.

        Raises:
            OptionError: a number out of its bounds.
        """
        for name, bound in BOUNDS.items():
            value = getattr(self, name)
            if not bound.low <= value <= bound.high:
                raise OptionError(f"{name} of the reactive rule is {value}: it takes {bound.low:g} to {bound.high:g}")

    def vector(self) -> NDArray[np.float64]:
        """In the order of the fields, each 0 to 1."""
        return np.array([_to_unit(getattr(self, name), bound) for name, bound in BOUNDS.items()])

    def to_toml(self) -> str:
        """As `load_reactive` reads it."""
        return "".join(f"{name} = {value!r}\n" for name, value in asdict(self).items())


BOUNDS: Final[dict[str, Bound]] = {
    "rate_us": Bound(50_000, 2_000_000),
    "sleep_burst_us": Bound(500, 50_000),
    "hog_burst_us": Bound(1_000, 100_000),
    "debt_gain": Bound(0, 1, log=False),
    "debt_cap_us": Bound(0, 50_000, log=False),
    "credit_gain": Bound(0, 2, log=False),
    "credit_cap_us": Bound(0, 200_000, log=False),
    "quiet_us": Bound(5_000, 500_000),
    "probe_us": Bound(4_000, 200_000),
    "backoff_us": Bound(20_000, 1_000_000),
    "backoff_growth": Bound(1, 4, log=False),
    "backoff_cap_us": Bound(100_000, 20_000_000),
    "probe_gap_us": Bound(1_000, 1_000_000),
    "present_share": Bound(0.0005, 0.2),
    "release_us": Bound(10_000, 10_000_000),
    "miss_us": Bound(20_000, 2_000_000),
    "boost_missing": Bound(0, 1, log=False),
    "boost_wait_us": Bound(100, 50_000),
    "boost_share": Bound(0.02, 1, log=False),
    "reserve_missing": Bound(0, 1, log=False),
    "reserve_margin": Bound(1, 3, log=False),
    "demote_missing": Bound(0, 1, log=False),
    "idle_missing": Bound(0, 1, log=False),
    "urgent_slack": Bound(-1, 1, log=False),
    "calm_us": Bound(20_000, 10_000_000),
    "floor_share": Bound(0, 1, log=False),
    "fair_us": Bound(100_000, 5_000_000),
    "chatty_per_s": Bound(300, 50_000),
    "chatty_share": Bound(0.01, 1),
}
"""Of each field, in the same order."""


def from_vector(values: Sequence[float] | NDArray[np.float64]) -> ReactiveOptions:
    """The other way round; values beyond 0 to 1 count as 0 or 1, as tuners step over the edge.

    Raises:
        OptionError: another number of values, or one that is none.
    """
    if len(values) != len(BOUNDS):
        raise OptionError(f"the reactive rule has {len(BOUNDS)} numbers, not {len(values)}")
    if not np.isfinite(values).all():
        raise OptionError("a number of the reactive rule is none")
    pairs = zip(BOUNDS.items(), values, strict=True)
    return ReactiveOptions(**{name: _from_unit(float(value), bound) for (name, bound), value in pairs})


def load_reactive(path: Path) -> ReactiveOptions:
    """From a TOML file; what it leaves out is as it is here.

    Raises:
        OptionError: it cannot be read, has an unknown key (the nearest one is named), or a number out of its bounds.
    """
    return load_options(ReactiveOptions, path)


def _to_unit(value: float, bound: Bound) -> float:
    if bound.log:
        return math.log(value / bound.low) / math.log(bound.high / bound.low)
    return (value - bound.low) / (bound.high - bound.low)


def _from_unit(unit: float, bound: Bound) -> float:
    unit = min(max(unit, 0.0), 1.0)
    value = bound.low * (bound.high / bound.low) ** unit if bound.log else bound.low + unit * (bound.high - bound.low)
    return min(max(value, bound.low), bound.high)


NAMES: Final = tuple(field.name for field in fields(ReactiveOptions))
