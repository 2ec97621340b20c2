"""What a setting would bring a served model, by its devices' batch curves. Pure.

The model behind it: a request that comes finds a run under way, waits for the rest of it, then for the runs of those
before it, and is answered at the end of its own. Where more comes than the devices can do, the queue is as full as its
limit allows, and every newcomer waits so long; so the limit decides whether answers are in time, and the batch how
many there are. A slower device that is spilled to takes its share of what is too much for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, exp, sqrt
from typing import Final

from npuops.hostsched.serving_state import MOST_WAITING, DeviceLoad, ServingFrame, ServingSetting
from npuops.runtime.router import takes_part

SPREAD: Final = 2.0
"""Standard deviations of the arrivals of one run that the queue must take without sending anybody away."""


_MARGIN: Final = 1.25
"""Of a spill, over what it takes now: devices get slower and faster."""
_SETTLES: Final = 4
"""Steps towards the batch that a rate makes."""
_LEAST_LOAD: Final = 1e-9
"""Below it nobody meets anybody."""


@dataclass(frozen=True, slots=True)
class ServingForecast:
    """Of one setting.

    Attributes:
        miss_share: of requests that come: answered late, or sent away.
        late_share: of requests that are answered.
        goodput: answers in time, a second.
        wait_us: until the last one in the queue is answered.
        capacity: answers a second, at most.
    """

    miss_share: float
    late_share: float
    goodput: float
    wait_us: float
    capacity: float


def candidates_of(
    devices: Sequence[DeviceLoad], slo_us: float, own: ServingSetting, caution: float
) -> list[ServingSetting]:
    """Budgets and limits worth a look, the server's own first.

    For each size that was measured: a budget that makes it the largest batch, with as many places as can be answered
    in time, half, and twice as many; never more than the server's own. No device is spilled to.

    Args:
        devices: at least one.
        slo_us: answers must be there by then.
        own: of the model's options.
        caution: above 1: times that runs take longer than predicted.
    """
    found = {own: None}
    best = _best(devices)
    for rows in sorted({rows for device in devices for rows, _ in device.curve.points}):
        longest_us = best.run_us(rows)
        taking = [each for each in devices if takes_part(each.run_us(1), best.run_us(1), longest_us, 0.0)]
        budget_us = max(device.curve.us(rows) for device in taking)
        runs = min(slo_us / (caution * device.run_us(rows)) for device in taking) - 1
        most = sum(device.curve.best_rows(budget_us) for device in taking) * runs
        for places in (most / 2, most, 2 * most):
            limit = min(max(int(places), 1), own.queue_requests, MOST_WAITING)
            found[ServingSetting(max(budget_us, 1.0), limit)] = None
    return list(found)


def spills_of(devices: Sequence[DeviceLoad], slo_us: float, setting: ServingSetting) -> list[ServingSetting]:
    """The same setting without a spill, and with one for each device that only a spill brings in, at most an SLO."""
    best = _best(devices)
    longest_us = best.run_us(best.curve.best_rows(setting.budget_us))
    lone_us = sorted({each.run_us(1) for each in devices})
    wanted = [_MARGIN * (us - best.run_us(1)) for us in lone_us if not takes_part(us, best.run_us(1), longest_us, 0.0)]
    return [replace(setting, spill_us=us) for us in (0.0, *wanted) if us <= slo_us]


def forecast(frame: ServingFrame, setting: ServingSetting, rate: float, caution: float) -> ServingForecast:
    """What comes of it while requests come at this rate.

    Args:
        frame: the devices and the queue as they are now.
        setting: that would be in force.
        rate: requests a second.
        caution: above 1: times that runs take longer than predicted.
    """
    limit, (taking, spilled) = setting.queue_requests, _taking(frame.devices, setting)
    share = max(limit // len(taking), 1)
    most = [min(device.curve.best_rows(setting.budget_us), share) for device in taking]
    capacity = _rows_a_second(taking, most, caution)
    there = [device.curve.best_rows(setting.budget_us) for device in spilled]
    helped = _rows_a_second(spilled, there, caution)
    if capacity <= 0 or rate <= 0:
        return ServingForecast(0.0, 0.0, 0.0, 0.0, capacity + helped)
    peak = 1.0
    if rate >= capacity:
        batches, queue = most, limit * capacity / (capacity + helped)
    else:
        batches = [1] * len(taking)
        for _ in range(_SETTLES):  # what comes during a run is the next one
            during = rate * max(_runs_us(taking, batches, caution)) / 1e6
            peak = max(during + SPREAD * sqrt(during), 1.0)
            batches = [min(rows, max(ceil(peak / len(taking)), 1)) for rows in most]
        queue = min(float(limit), max(peak, float(frame.waiting)))
    longest_us = max(_runs_us(taking, batches, caution))
    # Whoever comes last: the rest of the run under way, those before it, and its own.
    wait_us = longest_us * (1 + ceil(queue / sum(batches)))
    late = min(max((wait_us - frame.slo_us) / longest_us, 0.0), 1.0)
    if spilled and rate >= capacity:  # it waits in the same queue, and then runs there
        slowest_us = max(_runs_us(spilled, there, caution))
        late_there = min(max((wait_us - longest_us + slowest_us - frame.slo_us) / slowest_us, 0.0), 1.0)
        late += (late_there - late) * helped / (capacity + helped)
    capacity += helped
    refused = max(1.0 - capacity / rate, max(peak - limit, 0.0) / (2 * peak), _refused(rate / capacity, limit))
    in_time = (frame.slo_us / longest_us - 1) * sum(batches)
    if in_time < limit:
        late = max(late, _beyond(rate / capacity, in_time))
    miss_share = refused + (1 - refused) * late
    return ServingForecast(miss_share, late, min(rate, capacity) * (1 - late), wait_us, capacity)


def _refused(load: float, places: float) -> float:
    """Share of arrivals that find no place, below capacity: of a finite queue, by the tail of an endless one."""
    beyond = _beyond(load, places)
    return (1 - load) * beyond / (1 - load * beyond) if load < 1 else 0.0


def _beyond(load: float, waiting: float) -> float:
    """Share of time in which more wait, of Poisson arrivals at runs of even length in heavy traffic (Kingman 1962)."""
    if not _LEAST_LOAD < load < 1:
        return 0.0
    return load * exp(-2 * (1 - load) / load * max(waiting, 0.0))


def _taking(
    devices: Sequence[DeviceLoad], setting: ServingSetting
) -> tuple[tuple[DeviceLoad, ...], tuple[DeviceLoad, ...]]:
    """Those that get requests anyway, and those that a spill brings in."""
    best = _best(devices)
    best_us, longest_us = best.run_us(1), best.run_us(best.curve.best_rows(setting.budget_us))
    anyway = tuple(each for each in devices if takes_part(each.run_us(1), best_us, longest_us, 0.0))
    brought = tuple(each for each in devices if takes_part(each.run_us(1), best_us, longest_us, setting.spill_us))
    return anyway, tuple(each for each in brought if each not in anyway)


def _best(devices: Sequence[DeviceLoad]) -> DeviceLoad:
    return min(devices, key=lambda each: each.run_us(1))


def _rows_a_second(devices: Sequence[DeviceLoad], batches: Sequence[int], caution: float) -> float:
    return sum(rows / us * 1e6 for rows, us in zip(batches, _runs_us(devices, batches, caution), strict=True) if us > 0)


def _runs_us(devices: Sequence[DeviceLoad], batches: Sequence[int], caution: float) -> list[float]:
    return [device.run_us(rows) * caution for device, rows in zip(devices, batches, strict=True)]
