"""What is done for tasks that somebody waits for: nothing, a boost, a reservation.

More as soon as it is needed, less only when it was calm for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from npuops.eevdf.setting import SchedPolicy
from npuops.hostsched.bounds import MOST_RESERVED
from npuops.hostsched.evidence import SHARE, WAIT, Evidence
from npuops.hostsched.frame import Frame, Task, TaskId
from npuops.hostsched.late_answers import Answers
from npuops.hostsched.levels import BOOST, RESERVE_25, RESERVE_50
from npuops.hostsched.outgrown import FULL
from npuops.hostsched.plan import Level
from npuops.hostsched.reactive_options import ReactiveOptions

_REFUSED_US: Final = 250_000
"""A reservation that the kernel did not grant for so long is not asked for again soon."""
_PERIODS: Final = 2
"""So many periods of a reservation must fit into the SLO: 1 ms in 4 ms missed half of the answers due in 2 ms."""
_LONG_AGO: Final = -(2**62)


@dataclass(slots=True)
class _Rung:
    boosted_us: int = _LONG_AGO
    """When it was last needed."""
    reserved_us: int = _LONG_AGO
    since_us: int | None = None
    """Since when a reservation is planned."""
    barred_until_us: int = _LONG_AGO


class Relief:
    """Remembers who needed what, and when."""

    def __init__(self, options: ReactiveOptions) -> None:
        self._options = options
        self._rungs: dict[TaskId, _Rung] = {}
        self._tasks: tuple[Task, ...] = ()
        self._rows: dict[TaskId, int] = {}

    def levels(
        self, frame: Frame, evidence: Evidence, told: dict[TaskId, Answers], interactive: Sequence[int]
    ) -> dict[TaskId, tuple[Level, str]]:
        """A level for those who need one, and why.

        Args:
            frame: the latest look.
            evidence: of its tasks.
            told: those with a hint that somebody waits.
            interactive: rows of those without a hint that look like it.
        """
        if frame.tasks is not self._tasks:
            self._tasks, self._rows = frame.tasks, {task.id: row for row, task in enumerate(frame.tasks)}
        rows = self._rows
        served = [frame.tasks[row].id for row in sorted({*(rows[task] for task in told), *interactive})]
        self._rungs = {task: self._rungs.get(task) or _Rung() for task in served}
        for task, answers in told.items():
            self._need(frame.at_us, self._rungs[task], answers, evidence.known[rows[task]][WAIT])
        for row in interactive:
            known = evidence.known[row]
            if known[SHARE] >= self._options.present_share and known[WAIT] >= self._options.boost_wait_us:
                self._rungs[frame.tasks[row].id].boosted_us = frame.at_us
        reserved = self._reservations(frame, evidence, told, rows) if told else {}
        found: dict[TaskId, tuple[Level, str]] = {}
        for task, rung in self._rungs.items():
            share = evidence.known[rows[task]][SHARE]
            if task in reserved:
                found[task] = (reserved[task], f"{told[task].miss_share:.0%} of its answers were late")
            elif self._is_due(frame.at_us, rung.boosted_us) and (task in told or share <= self._options.boost_share):
                found[task] = (BOOST, "its answers are late" if task in told else "it waits long for its turns")
        return found

    def _need(self, at_us: int, rung: _Rung, answers: Answers, wait_us: float) -> None:
        options = self._options
        waits = answers.hint.slo_us is None and wait_us >= options.boost_wait_us
        missing = answers.miss_share if answers.active or answers.miss_share > 0 else -1.0
        if answers.late or waits or missing >= options.boost_missing:
            rung.boosted_us = at_us
        if answers.hint.slo_us is not None and missing >= options.reserve_missing:
            rung.reserved_us = at_us

    def _is_due(self, at_us: int, needed_us: int) -> bool:
        return at_us - needed_us <= self._options.calm_us

    def _reservations(
        self, frame: Frame, evidence: Evidence, told: dict[TaskId, Answers], rows: dict[TaskId, int]
    ) -> dict[TaskId, Level]:
        left = MOST_RESERVED * frame.host.cpus
        found: dict[TaskId, Level] = {}
        order = sorted(told, key=lambda task: (self._rungs[task].since_us is None, -told[task].miss_share))
        for task in order:
            rung, row = self._rungs[task], rows[task]
            share = evidence.known[row][SHARE]
            self._bar(frame, rung, row, share)
            level = self._fitting(told[task], share, left)
            wanted = self._is_due(frame.at_us, rung.reserved_us) and frame.at_us >= rung.barred_until_us
            if not wanted or level is None or frame.tasks[row].cpus < frame.host.cpus:
                rung.since_us = None
                continue
            rung.since_us = frame.at_us if rung.since_us is None else rung.since_us
            found[task] = level
            left -= _share(level)
        return found

    def _bar(self, frame: Frame, rung: _Rung, row: int, share: float) -> None:
        """Give up a reservation that the kernel did not grant, or that its task has outgrown."""
        if rung.since_us is None or frame.at_us - rung.since_us < _REFUSED_US:
            return
        setting = frame.settings[row]
        granted = setting.policy is SchedPolicy.DEADLINE
        if not granted or share >= FULL * setting.share:
            rung.barred_until_us = frame.at_us + int(self._options.backoff_cap_us)

    def _fitting(self, answers: Answers, share: float, left: float) -> Level | None:
        """The smallest reservation that serves; None where none does."""
        needed = share * self._options.reserve_margin
        for level in (RESERVE_25, RESERVE_50):
            setting = level.setting
            if setting is None or needed > setting.share or setting.share > left + 1e-9:
                continue
            least_us = setting.period_us if level is RESERVE_50 else _PERIODS * setting.period_us
            if (answers.hint.slo_us or 0) >= least_us:
                return level
        return None


def _share(level: Level) -> float:
    return level.setting.share if level.setting is not None else 0.0


def worst(told: dict[TaskId, Answers]) -> float:
    """Share of late answers of the task that has most of them; 0 without any."""
    return max((1.0 if answers.late else answers.miss_share for answers in told.values()), default=0.0)
