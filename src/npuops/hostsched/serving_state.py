"""What a policy for `npuops serve` sees of one model, and what it may set. Pure.

The second client of one idea: a look, candidates that are all scored, a guard that compares forecasts with what came.
Here a task is a model version's queue, and its knobs are how long a shared run may be, how many requests may wait, and
when a slower device helps. The forecast is computed from batch curves, and not learned (docs/decisions/0021).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from npuops.errors import OptionError
from npuops.runtime.batch_curve import BatchCurve

MOST_WAITING: Final = 1 << 20
"""Of a queue's limit; more would be no limit."""


@dataclass(frozen=True, slots=True, order=True)
class ServingSetting:
    """What a policy sets of one model version.

    Attributes:
        budget_us: longest run that batching may make, by the device's curve.
        queue_requests: that may wait.
        spill_us: by so much later than the best device would, an idle one may answer while more waits; 0: never, which
            is the server's own rule.
    """

    budget_us: float
    queue_requests: int
    spill_us: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no engine can follow.

        Raises:
            OptionError: no time for a run, no place to wait, or a spill that is none.
        """
        if not 0 < self.budget_us < inf or not 1 <= self.queue_requests <= MOST_WAITING:
            raise OptionError(f"a run of {self.budget_us} µs with {self.queue_requests} requests waiting")
        if not 0 <= self.spill_us < inf:
            raise OptionError(f"a device may answer {self.spill_us} µs later")


@dataclass(frozen=True, slots=True)
class DeviceLoad:
    """One device that takes requests now; fallbacks are left out.

    Attributes:
        curve: as the server believes it.
        pace: times that its runs take longer than the curve says.
    """

    curve: BatchCurve
    pace: float

    def run_us(self, rows: int) -> float:
        """Of a run of so many rows, as things are."""
        return self.curve.us(rows) * self.pace


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingFrame:
    """One look at one model version. Counts are of requests since the look before.

    Attributes:
        at_us: when.
        seconds: since the look before.
        slo_us: an answer after so long counts as missed.
        arrived: came.
        in_time, late: were answered.
        refused: were sent away, before they ran or in place of it.
        waiting: rows in the queue now.
        devices: that take requests.
        setting: that was in force.
    """

    at_us: int
    seconds: float
    slo_us: float
    arrived: int
    in_time: int
    late: int
    refused: int
    waiting: int
    devices: tuple[DeviceLoad, ...]
    setting: ServingSetting

    @property
    def rate(self) -> float:
        """Requests that came, in a second."""
        return self.arrived / self.seconds if self.seconds > 0 else 0.0

    @property
    def miss_share(self) -> float | None:
        """Of the requests that ended; None where none did."""
        ended = self.in_time + self.late + self.refused
        return (self.late + self.refused) / ended if ended else None
