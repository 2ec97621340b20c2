"""Who decides what a served model's batches and queue may be: nobody, a rule, or a scorer of candidates. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Final, Protocol

from npuops.hostsched.serving_forecast import ServingForecast, candidates_of, forecast, spills_of
from npuops.hostsched.serving_state import ServingFrame, ServingSetting

FOLLOW: Final = 0.3
"""Of the latest look in the rate."""
_WORTH_A_CHANGE: Final = 0.01
"""Misses fewer, of all requests, that another setting than the present one must bring."""
_WAIT: Final = 0.01
"""Misses that a wait of a whole SLO is worth: of settings that miss alike, the sooner answer."""
_LONGEST: Final = 4.0
"""SLOs; a longer wait is not worse."""
_SURGE: Final = 1.3
"""Times all that the devices can do: more may come before the next look, and a queue that is too long by then stays."""
_SURGE_COUNTS: Final = 0.2
_LEAST_CAUTION: Final = 1.1
_MOST_CAUTION: Final = 2.0
_TOO_LATE: Final = 0.01
"""Share of late answers from which on the forecast was too bold."""


class ServingPolicy(Protocol):
    """Decides for one model version.

    Attributes:
        expected: of the setting that it chose last; None where it expects nothing.
    """

    expected: ServingForecast | None

    def decide(self, frame: ServingFrame) -> ServingSetting:
        """The setting until the next look."""
        ...


@dataclass(slots=True)
class OwnRule:
    """The server's own: what the model's options say, always."""

    own: ServingSetting
    expected: ServingForecast | None = None

    def decide(self, frame: ServingFrame) -> ServingSetting:  # noqa: ARG002 - it looks at nothing
        """The same."""
        return self.own


@dataclass(slots=True)
class SpillRule:
    """Always half an SLO of spill, and else the server's own: what a router that knew of the queue would do."""

    own: ServingSetting
    share: float = 0.5
    expected: ServingForecast | None = None

    def decide(self, frame: ServingFrame) -> ServingSetting:
        """The same for one SLO."""
        return replace(self.own, spill_us=frame.slo_us * self.share)


@dataclass(slots=True)
class SloRule:
    """A run may take this share of the SLO; the queue is as it was. What an owner would write into `model.toml`."""

    own: ServingSetting
    share: float = 0.5
    expected: ServingForecast | None = None

    def decide(self, frame: ServingFrame) -> ServingSetting:
        """The same for one SLO."""
        return ServingSetting(max(frame.slo_us * self.share, 1.0), self.own.queue_requests)


class Aimd:
    """More while answers are in time, less at once when they are not.

    Of the batch budget as Clipper does it (NSDI 2017, section 4.3: additive increase, a tenth less when the SLO is
    exceeded), and of the queue's limit likewise.
    """

    def __init__(self, own: ServingSetting) -> None:
        """Begins with the server's own."""
        self._own = own
        self.expected: ServingForecast | None = None
        self._budget_us, self._places = own.budget_us, float(own.queue_requests)

    def decide(self, frame: ServingFrame) -> ServingSetting:
        """One step."""
        answered = frame.in_time + frame.late
        if answered and frame.late > _TOO_LATE * answered:
            self._budget_us *= 0.9
            # A limit far above what waits would take seconds to come down to where it matters.
            self._places = max(min(self._places, float(max(frame.waiting, 1) * 2)) * 0.9, 1.0)
        elif answered:
            self._budget_us = min(self._budget_us + 0.02 * frame.slo_us, frame.slo_us)
            self._places = min(self._places + 1.0, float(self._own.queue_requests))
        least_us = min(device.curve.us(1) for device in frame.devices) if frame.devices else 1.0
        self._budget_us = max(self._budget_us, least_us, 1.0)
        return ServingSetting(self._budget_us, int(self._places))


class CurveScorer:
    """Scores candidates by the batch curves, and takes the best.

    Attributes:
        expected: of the setting that it chose last; None before, and where there was nothing to decide.
    """

    def __init__(self, own: ServingSetting) -> None:
        """Begins with the server's own."""
        self._own = own
        self._rate = 0.0
        self._caution = _LEAST_CAUTION
        self.expected: ServingForecast | None = None

    def decide(self, frame: ServingFrame) -> ServingSetting:
        """The best candidate; the present one while no other is clearly better."""
        if not frame.devices or not all(device.curve.us(1) > 0 for device in frame.devices):
            self.expected = None
            return self._own
        self._learn(frame)
        rate = max(self._rate, frame.rate)
        options = candidates_of(frame.devices, frame.slo_us, self._own, self._caution)
        surge = _SURGE * max(forecast(frame, each, inf, self._caution).capacity for each in options)
        options = [spilled for each in options for spilled in spills_of(frame.devices, frame.slo_us, each)]
        scored = [(self._worth(frame, each, rate, surge), each) for each in options]
        best_worth, best = max(scored, key=lambda each: each[0])
        if best_worth - self._worth(frame, frame.setting, rate, surge) < _WORTH_A_CHANGE:
            best = frame.setting
        self.expected = forecast(frame, best, rate, self._caution)
        return best

    def _learn(self, frame: ServingFrame) -> None:
        self._rate += FOLLOW * (frame.rate - self._rate)
        answered = frame.in_time + frame.late
        if answered and frame.late > _TOO_LATE * answered:
            self._caution = min(self._caution * 1.05, _MOST_CAUTION)
        elif answered:
            self._caution = max(self._caution * 0.995, _LEAST_CAUTION)

    def _worth(self, frame: ServingFrame, setting: ServingSetting, rate: float, surge: float) -> float:
        now = self._worth_at(frame, setting, rate)
        return (1 - _SURGE_COUNTS) * now + _SURGE_COUNTS * self._worth_at(frame, setting, max(rate, surge))

    def _worth_at(self, frame: ServingFrame, setting: ServingSetting, rate: float) -> float:
        found = forecast(frame, setting, rate, self._caution)
        return -found.miss_share - _WAIT * min(found.wait_us / frame.slo_us, _LONGEST)
