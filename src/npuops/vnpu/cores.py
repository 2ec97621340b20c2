"""The jobs that are on the cores now, moved through time. Pure.

Times are whole nanoseconds, so a job that was paused, slowed down and resumed takes exactly as long as its parts, and
two things that happen at the same moment do so exactly.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from npuops.vnpu.run_queue import leave_ns
from npuops.vnpu.tenancy import Context, Job, Pace


@dataclass(slots=True, eq=False)
class Running:
    """A job on a core.

    Attributes:
        ends_ns: of its steps, since `base_ns`.
        base_ns: when it would have begun, had it run at this pace from its first step.
        since_ns: since when it is on the core.
        claimed: it is there by the claim of its band (`run_queue.py`).
        before: when its context was served and since when it waited, before this turn.
        billed_ns: until when its time and energy are in the accounts.
        stop_ns: when it leaves, at its end or at an edge; None while the device hangs.
    """

    job: Job
    ends_ns: tuple[int, ...]
    base_ns: int
    since_ns: int
    claimed: bool
    before: tuple[int, int]
    billed_ns: int
    stop_ns: int | None = None

    @property
    def finish_ns(self) -> int:
        """When its last step ends, if nothing comes between."""
        return self.base_ns + self.ends_ns[-1]


class Cores:
    """All cores of a device.

    Attributes:
        running: at most as many as there are cores.
        dram_bytes: moved by steps that are over, counted when their job leaves the core or the device hangs.
    """

    def __init__(self, count: int, slice_ns: int, pace: Pace) -> None:
        self.running: list[Running] = []
        self.dram_bytes = 0
        self._cores = count
        self._slice_ns = slice_ns
        self._pace = pace
        self._frozen = False
        self._busy_ns = 0
        self._core_busy_ns = 0
        self._moved_ns = 0

    @property
    def free(self) -> bool:
        """Whether a job could start now."""
        return len(self.running) < self._cores and not self._frozen

    @property
    def working(self) -> int:
        """How many cores draw power: none while the device hangs."""
        return 0 if self._frozen else len(self.running)

    def busy_ns(self, now_ns: int) -> int:
        """Time with at least one job on a core."""
        return self._busy_ns + (now_ns - self._moved_ns if self.running else 0)

    def core_busy_ns(self, now_ns: int) -> int:
        """The same for every core, added up."""
        return self._core_busy_ns + len(self.running) * (now_ns - self._moved_ns)

    def start(self, job: Job, now_ns: int, *, claimed: bool) -> None:
        """Put a job on a free core, at the step where it stopped."""
        self._count(now_ns)
        ends_ns = job.loaded.step_ends_ns(self._pace)
        base_ns = now_ns - (ends_ns[job.step - 1] if job.step else 0)
        before = (job.context.served_ns, job.context.waiting_since_ns)
        self.running.append(Running(job, ends_ns, base_ns, now_ns, claimed, before, billed_ns=now_ns))
        if not job.busy_ns:
            job.started_ns = now_ns

    def leave(self, running: Running, now_ns: int) -> None:
        """Take a job off its core, at an edge or because it failed."""
        self.bill(running, now_ns)
        if not self._frozen:
            self._progress(running, now_ns)
        self._count(now_ns)
        self.running.remove(running)

    def bill(self, running: Running, now_ns: int) -> None:
        """Bring the accounts of a job and its context up to now."""
        spent_ns, energy_mj = self.unbilled(running, now_ns)
        running.billed_ns = now_ns
        for account in (running.job, running.job.context.account):
            account.busy_ns += spent_ns
            account.energy_mj += energy_mj

    def unbilled(self, running: Running, now_ns: int) -> tuple[int, float]:
        """Core time (ns) and energy (mJ) that aren't in the accounts yet."""
        spent_ns = now_ns - running.billed_ns
        return spent_ns, 0.0 if self._frozen else spent_ns * self._pace.core_w * 1e-6

    def set_pace(self, pace: Pace, now_ns: int) -> None:
        """From now on steps take another time; what is left of a step in work stretches with it."""
        if pace == self._pace:
            return
        for running in self.running:
            self.bill(running, now_ns)
            old_ns, running.ends_ns = running.ends_ns, running.job.loaded.step_ends_ns(pace)
            if not self._frozen:
                running.base_ns = now_ns - _moved(now_ns - running.base_ns, old_ns, running.ends_ns)
        self._pace = pace

    def freeze(self, now_ns: int) -> None:
        """The device hangs: jobs keep their cores and get no further."""
        for running in self.running:
            self.bill(running, now_ns)
            self._progress(running, now_ns)
            running.stop_ns = None
        self._frozen = True

    def thaw(self) -> None:
        """It was reset; nothing is on the cores any more."""
        self._frozen = False

    def plan(self, waiting: Sequence[Context], claim: float, now_ns: int) -> None:
        """Decide anew when each job stops, after anything has changed.

        Args:
            waiting: everybody with a job in the queue.
            claim: as `run_queue.claim_ns` gives it.
            now_ns: the moment.
        """
        for running in () if self._frozen else self.running:
            running.stop_ns = running.finish_ns
            leave = leave_ns(
                running.job.context, running.since_ns, running.claimed, waiting, claim, now_ns, self._slice_ns
            )
            if leave == running.since_ns:  # it has not begun: where it stands is an edge
                running.stop_ns = leave
            elif leave is not None and leave < running.finish_ns:
                edge = bisect_left(running.ends_ns, leave - running.base_ns)
                running.stop_ns = running.base_ns + running.ends_ns[edge]

    def next_stop(self) -> Running | None:
        """Who leaves first."""
        first = None
        for running in self.running:
            if running.stop_ns is not None and (first is None or running.stop_ns < (first.stop_ns or 0)):
                first = running
        return first

    def _progress(self, running: Running, now_ns: int) -> None:
        """Note which steps are over."""
        job, moved_bytes = running.job, running.job.loaded.moved_bytes
        done = bisect_right(running.ends_ns, now_ns - running.base_ns)
        self.dram_bytes += moved_bytes[done] - moved_bytes[job.step]
        job.step = done

    def _count(self, now_ns: int) -> None:
        """Before the number of running jobs changes."""
        self._busy_ns, self._core_busy_ns = self.busy_ns(now_ns), self.core_busy_ns(now_ns)
        self._moved_ns = now_ns


def _moved(position_ns: int, old_ns: Sequence[int], new_ns: Sequence[int]) -> int:
    """The same place in a program on another timetable."""
    step = min(bisect_right(old_ns, position_ns), len(old_ns) - 1)
    old_start, new_start = (old_ns[step - 1], new_ns[step - 1]) if step else (0, 0)
    old_length, new_length = old_ns[step] - old_start, new_ns[step] - new_start
    done = position_ns - old_start
    return new_start + (done * new_length // old_length if old_length else 0)
