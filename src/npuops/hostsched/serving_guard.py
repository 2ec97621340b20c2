"""What stands between a policy for a served model and the model: bounds, patience, and the way back. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from npuops.hostsched.serving_forecast import ServingForecast
from npuops.hostsched.serving_state import ServingFrame, ServingSetting


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingGuardOptions:
    """How patient.

    Attributes:
        dwell_us: a setting stays for so long at least.
        surprise: by how much more requests may miss than was expected, of all.
        surprises: looks in a row after which the policy is not believed.
        pause_us: the server's own rule is in force for so long then.
    """

    dwell_us: int = 200_000
    surprise: float = 0.25
    surprises: int = 10
    pause_us: int = 5_000_000


OPTIONS: Final = ServingGuardOptions()


class ServingGuard:
    """Of one model version.

    Attributes:
        paused: the own rule is in force, because forecasts did not come true.
    """

    def __init__(self, own: ServingSetting, options: ServingGuardOptions = OPTIONS) -> None:
        """`own`: of the model's options; the queue never gets longer than it says."""
        self._own, self._options = own, options
        self._changed_us: int | None = None
        self._until_us = 0
        self._surprises = 0
        self.paused = False

    def allow(self, frame: ServingFrame, wanted: ServingSetting, expected: ServingForecast | None) -> ServingSetting:
        """What is set until the next look.

        Args:
            frame: the look; its counts are of the setting that was in force.
            wanted: by the policy.
            expected: of that setting when it was chosen, at the rate of then; None where nothing was.
        """
        self._watch(frame, expected)
        self.paused = frame.at_us < self._until_us
        if self.paused or not frame.devices:
            return self._own
        since_us = None if self._changed_us is None else frame.at_us - self._changed_us
        if frame.setting != self._own and since_us is not None and since_us < self._options.dwell_us:
            return frame.setting
        longest_us = max(frame.slo_us, self._own.budget_us)
        found = ServingSetting(
            min(wanted.budget_us, longest_us),
            min(wanted.queue_requests, self._own.queue_requests),
            min(wanted.spill_us, frame.slo_us),
        )
        if found != frame.setting:
            self._changed_us = frame.at_us
        return found

    def _watch(self, frame: ServingFrame, expected: ServingForecast | None) -> None:
        missed, answered = frame.late, frame.in_time + frame.late
        if expected is None or not answered or frame.setting == self._own:
            return
        # Refusals do not count: how many there are is the clients' doing. Late answers are what was promised not to be.
        if missed / answered > expected.late_share + self._options.surprise:
            self._surprises += 1
        else:
            self._surprises = 0
        if self._surprises >= self._options.surprises:
            self._surprises = 0
            self._until_us = frame.at_us + self._options.pause_us
