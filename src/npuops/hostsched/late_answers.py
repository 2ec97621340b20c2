"""How late the answers are, by what applications tell of their tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from npuops.hostsched.frame import Frame, TaskId
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.reactive_options import ReactiveOptions

_LEAST_ANSWERS = 1.0
"""Below so many remembered answers nothing is known of their share."""


@dataclass(slots=True)
class Answers:
    """Of one task.

    Attributes:
        hint: its last word.
        active: requests are there, or were a moment ago.
        late: a request is late, or nearly so.
        miss_share: of the answers of late; 0 while too few are known.
    """

    hint: Hint
    active: bool = False
    late: bool = False
    miss_share: float = 0.0
    _served: float = 0.0
    _missed: float = 0.0

    def add(self, hint: Hint, kept: float) -> None:
        """Take in the next word; what was before fades."""
        served = max(hint.served - self.hint.served, 0)
        missed = min(max(hint.missed - self.hint.missed, 0), served)
        self.hint = hint
        self._served = self._served * kept + served
        self._missed = self._missed * kept + missed
        known = self._served >= _LEAST_ANSWERS
        self.miss_share = self._missed / self._served if known else 0.0
        self.active = served > 0


class LateAnswers:
    """Follows the hints of latency-sensitive tasks from frame to frame."""

    def __init__(self, options: ReactiveOptions) -> None:
        self._options = options
        self._of: dict[TaskId, Answers] = {}

    def update(self, frame: Frame, gone_us: int) -> dict[TaskId, Answers]:
        """By task; only those whose application says that somebody waits."""
        kept = math.exp(-gone_us / self._options.miss_us)
        now: dict[TaskId, Answers] = {}
        for task, hint in zip(frame.tasks, frame.hints, strict=True):
            if hint is None or hint.kind is not Kind.LATENCY:
                continue
            answers = self._of.get(task.id) or Answers(hint)
            answers.add(hint, kept)
            self._look(answers, hint)
            now[task.id] = answers
        self._of = now
        return now

    def _look(self, answers: Answers, hint: Hint) -> None:
        queued = hint.queued or 0
        answers.active = answers.active or queued > 0
        least = self._options.urgent_slack * (hint.slo_us or 0)
        answers.late = hint.slack_us is not None and hint.slack_us < least and hint.queued != 0
