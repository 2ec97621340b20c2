"""Whether the fallback device may have a request, and why not: the policy on recent work. No fallback is silent."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from npuops.build.fallback import FallbackPolicy
from npuops.runtime.job import Fallback

WINDOW_US: Final = 60_000_000
STEP_US: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """May the fallback device have it.

    Attributes:
        why: in words, for the client and the log.
    """

    allowed: bool
    why: str


_ALLOWED: Final = Verdict(True, "the model's policy allows the fallback")
_BY_REQUEST: Final = Verdict(False, "the request forbids the fallback")
_FORBIDDEN: Final = Verdict(False, "the model's policy forbids the fallback")


class FallbackBudget:
    """The policy of one model version, and the share of the last minute's rows that fell back.

    What no device took counts as work too: while the better devices are gone, a budget of a tenth answers a tenth of
    what is asked for, and not less and less of it.

    Args of all methods: `rows` of the request or run; `now_us` on the engine's clock.
    """

    __slots__ = ("_all", "_fell_back", "_steps", "_window_us", "policy")

    def __init__(self, policy: FallbackPolicy, window_us: int = WINDOW_US) -> None:
        """`window_us`: how far it looks back."""
        self.policy = policy
        self._window_us = window_us
        self._steps: deque[tuple[int, int, int]] = deque()
        self._all = 0
        self._fell_back = 0

    def ratio(self, now_us: int) -> float | None:
        """Share of the rows of the window that fell back; None where there was no work."""
        self._forget_old(now_us)
        return self._fell_back / self._all if self._all else None

    def may_take(self, rows: int, asked: Fallback, now_us: int) -> Verdict:
        """Whether the fallback device may have it.

        Args:
            rows: of the request.
            asked: the request's own word. It can only be stricter than the policy: `allow` changes nothing.
            now_us: the moment.
        """
        if asked == "forbid":
            return _BY_REQUEST
        budget = self.policy.budget
        if budget <= 0:
            return _FORBIDDEN
        if budget >= 1:
            return _ALLOWED
        self._forget_old(now_us)
        if self._fell_back + rows <= budget * (self._all + rows):
            return _ALLOWED
        seconds = self._window_us // 1_000_000
        return Verdict(
            False,
            f"{self._fell_back} of the last {self._all} rows ({seconds} s) fell back, and the model's policy is "
            f"{self.policy.words}",
        )

    def ran(self, rows: int, fell_back: bool, now_us: int) -> None:
        """A run was answered."""
        self._note(rows, rows if fell_back else 0, now_us)

    def refused(self, rows: int, now_us: int) -> None:
        """No device took a request."""
        self._note(rows, 0, now_us)

    def _note(self, rows: int, fell_back: int, now_us: int) -> None:
        self._all += rows
        self._fell_back += fell_back
        step = now_us // STEP_US
        if self._steps and self._steps[-1][0] == step:
            _, all_rows, fallen = self._steps[-1]
            self._steps[-1] = (step, all_rows + rows, fallen + fell_back)
        else:
            self._steps.append((step, rows, fell_back))
            self._forget_old(now_us)

    def _forget_old(self, now_us: int) -> None:
        oldest = (now_us - self._window_us) // STEP_US
        while self._steps and self._steps[0][0] <= oldest:
            _, rows, fell_back = self._steps.popleft()
            self._all -= rows
            self._fell_back -= fell_back
