"""When a worker that ended is started again, and what becomes of the requests that it had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from npuops.runtime.job import Job

FIRST_S: Final = 0.1
LONGEST_S: Final = 5.0
HEALTHY_S: Final = 60.0
KILLS: Final = 2
"""Workers that a batch may end before its requests run alone, and a request that runs alone before it is failed. Two,
since a worker may die of something else at the wrong moment, but hardly twice."""


class Backoff:
    """Pauses before the restarts of one device: none before the first, then from 0.1 s, doubling up to 5 s.

    A device that was healthy for `healthy_s` seconds starts over.
    """

    __slots__ = ("_failures", "_healthy_s")

    def __init__(self, healthy_s: float = HEALTHY_S) -> None:
        self._failures = 0
        self._healthy_s = healthy_s

    def next_delay_s(self, healthy_s: float) -> float:
        """Seconds to wait before the next start.

        Args:
            healthy_s: how long the worker that ended had been ready; 0 where it never was.
        """
        if healthy_s >= self._healthy_s:
            self._failures = 0
        self._failures += 1
        if self._failures == 1:
            return 0.0
        return min(FIRST_S * 2.0 ** min(self._failures - 2, 16), LONGEST_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What becomes of the requests that were on a worker when it ended.

    Attributes:
        together: they go again, with others.
        alone: each goes again without any other on the device.
        failed: they ended workers alone; the client is told.
    """

    together: tuple[Job, ...] = ()
    alone: tuple[Job, ...] = ()
    failed: tuple[Job, ...] = ()


class Suspects:
    """Remembers on whose run a worker ended, until they are answered. False while there is nobody.

    One poisonous request must not fail those that happened to share its run, and must not keep a device from serving.
    """

    __slots__ = ("_kills",)

    def __init__(self) -> None:
        self._kills: dict[Job, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._kills)

    def ended(self, running: Sequence[Job], prepared: Sequence[Job] = ()) -> Replay:
        """A worker ended.

        Args:
            running: the requests of the run that it was at.
            prepared: those of the runs that it had not begun: they are not to blame.
        """
        together, alone, failed = list[Job](), list[Job](), list[Job]()
        for job in running:
            in_company, by_itself = self._kills.get(job, (0, 0))
            if len(running) > 1:
                in_company += 1
            else:
                by_itself += 1
            self._kills[job] = (in_company, by_itself)
            if by_itself >= KILLS:
                failed.append(job)
                del self._kills[job]
            elif by_itself or in_company >= KILLS:
                alone.append(job)
            else:
                together.append(job)
        for job in prepared:
            in_company, by_itself = self._kills.get(job, (0, 0))
            (alone if by_itself or in_company >= KILLS else together).append(job)
        return Replay(together=tuple(together), alone=tuple(alone), failed=tuple(failed))

    def answered(self, jobs: Sequence[Job]) -> None:
        """They are not to blame, or nobody waits for them any more. Call it while there are suspects."""
        for job in jobs:
            self._kills.pop(job, None)
