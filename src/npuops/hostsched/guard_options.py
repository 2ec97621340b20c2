"""What a policy may do at most. All times are the frames' own; nothing depends on how often they come."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final

from npuops.eevdf.setting import SchedPolicy
from npuops.errors import OptionError, nearest
from npuops.hostsched.bounds import LEAST_NICE, LEAST_SLICE_US, MOST_RESERVED
from npuops.hostsched.plan import Level


class Act(StrEnum):
    """What a level does to a task, for `--allow`."""

    DEMOTE = "demote"
    """Nice above 0, or the batch policy."""
    IDLE = "idle"
    BOOST = "boost"
    """Nice below 0."""
    SLICE = "slice"
    RESERVE = "reserve"


def acts_of(level: Level) -> frozenset[Act]:
    """Everything that this level does; empty for `normal` and for nice 0."""
    setting = level.setting
    if setting is None:
        return frozenset()
    if setting.policy is SchedPolicy.DEADLINE:
        return frozenset({Act.RESERVE})
    found = {Act.SLICE} if setting.slice_us is not None else set()
    if setting.policy is SchedPolicy.IDLE:
        found.add(Act.IDLE)
    elif setting.nice < 0 or (level.group_nice or 0) < 0:
        found.add(Act.BOOST)
    elif setting.nice > 0 or setting.policy is SchedPolicy.BATCH:
        found.add(Act.DEMOTE)
    return frozenset(found)


def acts_named(names: tuple[str, ...]) -> frozenset[Act]:
    """Of the command line's `--allow`.

    Raises:
        OptionError: no such act; the nearest one is named.
    """
    for name in names:
        if name not in tuple(Act):
            raise OptionError(f"{name!r} is nothing that can be allowed", advice=nearest(name, Act))
    return frozenset(Act(name) for name in names)


ALL_ACTS: Final = frozenset(Act)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardOptions:
    """Bounds, patience and doubt.

    Attributes:
        allowed: what may be done to a task at all.
        least_nice: of tasks and groups.
        most_nice: the same.
        least_slice_us: of tasks.
        most_slice_us: the same.
        reserved_share: of all CPUs, for all reservations together.
        dwell_us: a task enters the same level at most once in this time; going back to normal is always free.
        changes_per_s: so many times in any second may some task enter some level.
        frames: a task is left alone until it was seen so often.
        hysteresis_us: a level that a forecasting policy wants must be wanted for so long, counted from the look before
            the first that wanted it: between looks that are farther apart than that nothing flaps.
        gain: by which a forecast must be worth more than the forecast of leaving everything normal (`objective`).
        silent_us: a lowered task that did not run for so long goes back to normal, for it may be starving.
        waiting_us: a task that certainly waited for so long without running puts everything back to normal.
        fair_share: a task that wants the CPU all the time and gets less than this part of an equal share, likewise.
        fair_us: over so long.
        cool_us: how long everything stays normal then.
        distance: how far outside of the ranges seen in training a feature may be, in widths of its middle 90 %.
        drift: by which the realised share of misses may exceed the forecast's.
        drift_us: over so long.
        drift_answers: and so many answers, before it counts.
        control_share: of the time of a forecasting policy in which its fallback holds (or everything is normal), for
            comparison. It costs what the forecasts gain in that time: benchmarks leave it at 0, or count it apart.
        control_us: length of such a window.
        seed: chooses the windows.
    """

    allowed: frozenset[Act] = ALL_ACTS
    least_nice: int = LEAST_NICE
    most_nice: int = 19
    least_slice_us: int = LEAST_SLICE_US
    most_slice_us: int = 20_000
    reserved_share: float = MOST_RESERVED
    dwell_us: int = 50_000
    changes_per_s: int = 200
    frames: int = 2
    hysteresis_us: int = 15_000
    gain: float = 0.01
    silent_us: int = 1_000_000
    waiting_us: int = 1_000_000
    fair_share: float = 0.1
    fair_us: int = 2_000_000
    cool_us: int = 2_000_000
    distance: float = 1.0
    drift: float = 0.15
    drift_us: int = 2_000_000
    drift_answers: int = 50
    control_share: float = 0.05
    control_us: int = 200_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a guard that guards nothing.

        Raises:
            OptionError: a figure out of bounds.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = _BOUNDS.get(field.name, (None, None))
            if low is not None and high is not None and not low <= value <= high:
                raise OptionError(f"the guard's {field.name} is {value}: it takes {low} to {high}")
        if self.least_nice > self.most_nice or self.least_slice_us > self.most_slice_us:
            raise OptionError("the guard's lower bound of nice or slice is above the upper one")


_HOUR_US: Final = 3_600_000_000
_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "least_nice": (-20, 19),
    "most_nice": (-20, 19),
    "least_slice_us": (100, 100_000),
    "most_slice_us": (100, 100_000),
    "reserved_share": (0.0, 0.95),
    "dwell_us": (0, _HOUR_US),
    "changes_per_s": (1, 100_000),
    "frames": (1, 1000),
    "hysteresis_us": (0, _HOUR_US),
    "gain": (0.0, 10.0),
    "silent_us": (10_000, 10_000_000),
    "waiting_us": (10_000, 10_000_000),
    "fair_share": (0.0, 1.0),
    "fair_us": (100_000, 60_000_000),
    "cool_us": (0, _HOUR_US),
    "distance": (0.0, 1e6),
    "drift": (0.0, 1.0),
    "drift_us": (100_000, 60_000_000),
    "drift_answers": (1, 1_000_000),
    "control_share": (0.0, 0.5),
    "control_us": (10_000, 60_000_000),
}
