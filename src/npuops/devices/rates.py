"""What two looks at cumulative counters say about the time between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from npuops.devices.quantities import MEANINGS, Kind, Quantity, Reading


@dataclass(frozen=True, slots=True)
class Change:
    """How much a counter rose. After a restart that is what it counted since: a lower bound."""

    amount: float
    restarted: bool = False


def change(before: Reading, now: Reading) -> Change:
    """The rise of a counter, never negative.

    A counter that fell either wrapped (its width is known, and the rise across the edge is less than half of it)
    or started over with its driver.
    """
    rise = now.value - before.value
    if rise >= 0:
        return Change(rise)
    wraps_at = now.wraps_at
    if wraps_at is not None and before.value <= wraps_at:
        across = rise + wraps_at
        if 0 <= across < wraps_at / 2:
            return Change(across)
    return Change(now.value, restarted=True)


def restarted(before: Mapping[Quantity, Reading], now: Mapping[Quantity, Reading]) -> tuple[Quantity, ...]:
    """The counters that started over between two looks: their driver or their device was restarted.

    One of limited width says nothing: seldom looked at, it may have wrapped instead.
    """
    return tuple(
        quantity
        for quantity, reading in now.items()
        if MEANINGS[quantity].kind is Kind.COUNTER
        and quantity in before
        and reading.wraps_at is None
        and change(before[quantity], reading).restarted
    )


def derived(
    before: Mapping[Quantity, Reading], now: Mapping[Quantity, Reading], interval_s: float
) -> dict[Quantity, Reading]:
    """What the driver does not give but its counters do: busy ratio, power from energy, energy from power.

    Args:
        before: the readings of the last look, with what was derived then.
        now: the readings of this look, as read.
        interval_s: between them, by a monotonic clock; nothing is derived where it is not positive.
    """
    if interval_s <= 0:
        return {}
    found = {
        Quantity.BUSY_RATIO: _busy_ratio(before, now, interval_s),
        Quantity.POWER: _mean_power(before, now, interval_s),
        Quantity.ENERGY: _integrated(before, now, interval_s),
    }
    return {quantity: reading for quantity, reading in found.items() if reading is not None and quantity not in now}


def _rise(before: Mapping[Quantity, Reading], now: Mapping[Quantity, Reading], quantity: Quantity) -> float | None:
    """None where either look lacks it, or where it started over in between."""
    if quantity not in before or quantity not in now:
        return None
    found = change(before[quantity], now[quantity])
    return None if found.restarted else found.amount


def _busy_ratio(
    before: Mapping[Quantity, Reading], now: Mapping[Quantity, Reading], interval_s: float
) -> Reading | None:
    """Capped at 1: the file is read a moment after the clock."""
    busy_s = _rise(before, now, Quantity.BUSY)
    if busy_s is not None:
        return Reading(min(busy_s / interval_s, 1.0), f"{now[Quantity.BUSY].source} over {interval_s:.2f} s")
    busy, ticks = _rise(before, now, Quantity.BUSY_TICKS), _rise(before, now, Quantity.TICKS)
    if busy is None or not ticks:
        return None
    return Reading(min(busy / ticks, 1.0), f"{now[Quantity.TICKS].source} over {ticks:.0f} ticks")


def _mean_power(
    before: Mapping[Quantity, Reading], now: Mapping[Quantity, Reading], interval_s: float
) -> Reading | None:
    energy_j = _rise(before, now, Quantity.ENERGY)
    if energy_j is None:
        return None
    return Reading(energy_j / interval_s, f"{now[Quantity.ENERGY].source} over {interval_s:.2f} s")


def _integrated(
    before: Mapping[Quantity, Reading], now: Mapping[Quantity, Reading], interval_s: float
) -> Reading | None:
    """The trapezoid between two powers, added to what was integrated before; starts at 0 with the first two looks."""
    if Quantity.POWER not in before or Quantity.POWER not in now:
        return None
    joules = (before[Quantity.POWER].value + now[Quantity.POWER].value) / 2 * interval_s
    so_far = before[Quantity.ENERGY].value if Quantity.ENERGY in before else 0.0
    return Reading(so_far + joules, f"{now[Quantity.POWER].source} integrated since npuops looks")
