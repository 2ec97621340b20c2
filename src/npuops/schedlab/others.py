"""What else runs on a host beside a mix: nobody looks at it, but the host's figures and the mix's switches tell of it.

A real machine always has more on it than the tasks that opted in: daemons, threads of the kernel, the agent itself. A
policy that learned on an empty one would take a busy second CPU for something that it never saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_STEP_US: Final = 100_000
"""For so long they do the same."""


@dataclass(frozen=True, slots=True)
class Others:
    """Drawn by a seed, so that a copy of a host meets the same.

    Attributes:
        seed: of what they do when.
        busy_share: of the CPUs that the mix leaves idle, on average.
        runnable: of them at a time, on average.
        pushes_per_s: how often a task of the mix is pushed aside for a moment, in each second that it runs: threads of
            the kernel do that.
    """

    seed: int = 0
    busy_share: float = 0.0
    runnable: float = 0.0
    pushes_per_s: float = 0.0

    def until(self, end_us: int) -> Presence:
        """All of them, until some moment of the mix."""
        random = np.random.default_rng([self.seed, 5])
        steps = end_us // _STEP_US + 2
        shares = random.beta(1.0, 1.0 / max(self.busy_share, 1e-3) - 1.0, steps) if self.busy_share else np.zeros(steps)
        return Presence(np.cumsum(shares) - shares, shares, random.poisson(self.runnable, steps), self.pushes_per_s)


NOBODY: Final = Others()


@dataclass(frozen=True, slots=True, eq=False)
class Presence:
    """What they do, by the step. Never written to, so that copies of a host share it.

    Attributes:
        before: float64 (steps,), shares of all steps before each, added up.
        shares: float64 (steps,), of idle time that they take.
        counts: int64 (steps,), how many of them want to run.
        pushes_per_s: as of `Others`.
    """

    before: NDArray[np.float64]
    shares: NDArray[np.float64]
    counts: NDArray[np.int64]
    pushes_per_s: float

    def runnable(self, now_us: int) -> int:
        """Of them, at this moment."""
        return int(self.counts[now_us // _STEP_US])

    def busy_us(self, now_us: int, cpus: int, ran_us: int) -> int:
        """CPU time of all, of the mix and of others, until now.

        Args:
            now_us: since the mix began.
            cpus: of the host.
            ran_us: CPU time of the mix so far, which they leave to it.
        """
        step, part_us = divmod(now_us, _STEP_US)
        taken = (self.before[step] * _STEP_US + self.shares[step] * part_us) / max(now_us, 1)
        return ran_us + int(taken * max(cpus * now_us - ran_us, 0))

    def pushes(self, run_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """How often each task was pushed aside so far, by its CPU time: int64, shape as given."""
        return (run_ns * (self.pushes_per_s / 1e9)).astype(np.int64)
