"""What a setting would bring a served model, by its devices' batch curves. Pure.

The model behind it: a request that comes finds a run under way, waits for the rest of it, then for the runs of those
before it, and is answered at the end of its own. Where more comes than the devices can do, the queue is as full as its
limit allows, and every newcomer waits so long; so the limit decides whether answers are in time, and the batch how
many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Final

from npuops.hostsched.serving_state import MOST_WAITING, DeviceLoad, ServingFrame, ServingSetting

SPREAD: Final = 2.0
"""Standard deviations of the arrivals of one run that the queue must take without sending anybody away."""


_SETTLES: Final = 4
"""Steps towards the batch that a rate makes."""


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
    """Settings worth a look, the server's own first.

    For each size that was measured: a budget that makes it the largest batch, with as many places as can be answered
    in time, half, and twice as many; never more than the server's own.

    Args:
        devices: at least one.
        slo_us: answers must be there by then.
        own: of the model's options.
        caution: above 1: times that runs take longer than predicted.
    """
    found = {own: None}
    for rows in sorted({rows for device in devices for rows, _ in device.curve.points}):
        budget_us = max(device.curve.us(rows) for device in devices)
        runs = min(slo_us / (caution * device.pace * device.curve.us(rows)) for device in devices) - 1
        most = sum(device.curve.best_rows(budget_us) for device in devices) * runs
        for places in (most / 2, most, 2 * most):
            limit = min(max(int(places), 1), own.queue_requests, MOST_WAITING)
            found[ServingSetting(max(budget_us, 1.0), limit)] = None
    return list(found)


def forecast(frame: ServingFrame, setting: ServingSetting, rate: float, caution: float) -> ServingForecast:
    """What comes of it while requests come at this rate.

    Args:
        frame: the devices and the queue as they are now.
        setting: that would be in force.
        rate: requests a second.
        caution: above 1: times that runs take longer than predicted.
    """
    devices, limit = frame.devices, setting.queue_requests
    share = max(limit // len(devices), 1)
    most = [min(device.curve.best_rows(setting.budget_us), share) for device in devices]
    capacity = sum(rows / us * 1e6 for rows, us in zip(most, _runs_us(devices, most, caution), strict=True) if us > 0)
    if capacity <= 0 or rate <= 0:
        return ServingForecast(0.0, 0.0, 0.0, 0.0, capacity)
    peak = 1.0
    if rate >= capacity:
        batches, queue = most, float(limit)
    else:
        batches = [1] * len(devices)
        for _ in range(_SETTLES):  # what comes during a run is the next one
            during = rate * max(_runs_us(devices, batches, caution)) / 1e6
            peak = max(during + SPREAD * sqrt(during), 1.0)
            batches = [min(rows, max(ceil(peak / len(devices)), 1)) for rows in most]
        queue = min(float(limit), max(peak, float(frame.waiting)))
    longest_us = max(_runs_us(devices, batches, caution))
    # Whoever comes last: the rest of the run under way, those before it, and its own.
    wait_us = longest_us * (1 + ceil(queue / sum(batches)))
    late = min(max((wait_us - frame.slo_us) / longest_us, 0.0), 1.0)
    refused = max(1.0 - capacity / rate, max(peak - limit, 0.0) / (2 * peak))
    miss_share = refused + (1 - refused) * late
    return ServingForecast(miss_share, late, min(rate, capacity) * (1 - late), wait_us, capacity)


def _runs_us(devices: Sequence[DeviceLoad], batches: Sequence[int], caution: float) -> list[float]:
    return [device.curve.us(rows) * device.pace * caution for device, rows in zip(devices, batches, strict=True)]
