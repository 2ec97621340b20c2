"""Scales of what policies look at: everything within -1 to 1, with fixed constants, nothing learned from data.

They are part of a trained network's input: a change makes every trained policy void.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.eevdf import weights
from npuops.eevdf.setting import Setting
from npuops.hostsched.hint import Hint, Kind

KIND: Final = {None: 0.0, Kind.LATENCY: 1.0, Kind.BATCH: -0.5, Kind.BACKGROUND: -1.0}
"""What the feature `kind` is."""

_EVENTS_LOG: Final = (10.0, 10.0)
"""Events a second: log2(1 + x / 10) / 10, so that 10 000 a second (a chatty pipe) is 1."""
_BURST_LOG: Final = (100.0, 12.0)
"""Bursts: log2(1 + us / 100) / 12, so that 0.4 s is 1."""
_STILL_LOG: Final = (10_000.0, 12.0)
"""Time without a sleep: log2(1 + us / 10 000) / 12, so that 41 s are 1."""
_WEIGHT_LOG: Final = 10.0
"""Weights: log2 of the ratio to nice 0, divided by this: nice 19 is -0.6, nice -10 is 0.3, idle is -0.8."""
_SLO_LOG: Final = (100.0, 5.0)
"""SLO: 1 - log10(us / 100) / 5: 0.1 ms is 1, 10 ms is 0.6, 10 s and none are 0."""
_QUEUED_LOG: Final = 6.0
"""Queued requests: log2(1 + n) / 6: 63 are 1."""
_FANO_LOG: Final = 4.0
"""Variance of switches by their mean, v: log2(1 + v) / 4; a clock gives 0, chance 0.25, bursts more."""
RUNNABLE_PER_CPU: Final = 8.0
TASKS: Final = 16.0
WINDOW_US: Final = 20_000.0
"""The window: log10(us / 20 000)."""

_LEAST_RATE: Final = 1e-3
"""Answers a second below which there are none."""


def of_hint(hint: Hint) -> tuple[float, float, float, float]:
    """Kind, SLO, urgency, queued."""
    slo_us = max(hint.slo_us, 1) if hint.slo_us is not None else None
    slo = 0.0 if slo_us is None else 1.0 - math.log10(slo_us / _SLO_LOG[0]) / _SLO_LOG[1]
    urgency = 0.0 if slo_us is None or hint.slack_us is None else (1.0 - hint.slack_us / slo_us) / 2
    queued = math.log2(1 + max(hint.queued or 0, 0)) / _QUEUED_LOG
    return KIND[hint.kind], min(max(slo, 0.0), 1.0), min(max(urgency, 0.0), 1.0), queued


@lru_cache(maxsize=4096)
def of_setting(setting: Setting, group_nice: int) -> tuple[float, float]:
    """Weight and reservation."""
    ratio = weights.of(setting) * weights.of_nice(group_nice) / weights.NICE_0**2
    return math.log2(ratio) / _WEIGHT_LOG, setting.share


def clipped(found: NDArray[np.float64]) -> NDArray[np.float32]:
    """To -1 to 1, in place; `np.clip` costs several times as much for arrays of this size."""
    np.minimum(found, 1.0, out=found)
    np.maximum(found, -1.0, out=found)
    return found.astype(np.float32)


def events(per_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Events a second."""
    found: NDArray[np.float64] = np.log2(1 + per_s / _EVENTS_LOG[0]) / _EVENTS_LOG[1]
    return found


def late_share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of late answers; 0 where there are none."""
    found: NDArray[np.float64] = np.where(whole > _LEAST_RATE, part / np.maximum(whole, _LEAST_RATE), 0.0)
    return found


def bursts(us: NDArray[np.float64]) -> NDArray[np.float64]:
    """CPU time for each voluntary switch."""
    found: NDArray[np.float64] = np.log2(1 + us / _BURST_LOG[0]) / _BURST_LOG[1]
    return found


def stillness(us: NDArray[np.float64]) -> NDArray[np.float64]:
    """Time since a task last left the CPU by itself."""
    found: NDArray[np.float64] = np.log2(1 + us / _STILL_LOG[0]) / _STILL_LOG[1]
    return found


def unsteadiness(variance: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the voluntary switches in a window, per second; fewer than one a second says nothing of regularity."""
    found: NDArray[np.float64] = np.log2(1 + variance / np.maximum(mean, 1.0)) / _FANO_LOG
    return found
