"""The search for the highest rate that a server holds: grow until a trial fails, then halve the interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from npuops.loadgen.results import StageResult

GROWTH: Final = 2.0
PRECISION: Final = 1.05
"""Done when the lowest rate that failed is at most so many times the highest that held."""
MOST_TRIALS: Final = 24
LEAST_GOOD: Final = 0.99
"""Share of the requests that must be answered within the time limit."""
LEAST_RATE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One rate, and why it did not hold; an empty `why` means that it did."""

    rate: float
    why: str


def judge(result: StageResult, slo_ms: float) -> str:
    """Why the server does not hold this rate, in words; empty when it does."""
    if result.ended_early:
        return result.ended_early
    if result.requests == 0:
        return "no request was due: lengthen --duration"
    by = "" if result.client.keeps_up else ", and the client itself did not keep up (--processes)"
    if result.ok < LEAST_GOOD * result.requests:
        return f"only {result.ok / result.requests:.1%} of the requests were answered{by}"
    latency = result.latency
    if latency is not None and latency.tail_ms > slo_ms:
        name = "the slowest" if latency.p99_ms is None else "p99"
        return f"{name} was {latency.tail_ms:.3g} ms{by}"
    return ""


def next_rate(trials: Sequence[Trial], start: float) -> float | None:
    """The rate to try now, or None when the search is over.

    Args:
        trials: so far, in any order.
        start: the first rate.
    """
    held = max((trial.rate for trial in trials if not trial.why), default=None)
    failed = min((trial.rate for trial in trials if trial.why and trial.rate > (held or 0.0)), default=None)
    if len(trials) >= MOST_TRIALS:
        return None
    if held is None and failed is None:
        return start
    if failed is None:
        return (held or start) * GROWTH
    if held is None:
        lower = failed / GROWTH**2
        return lower if lower >= LEAST_RATE else None
    return (held * failed) ** 0.5 if failed > held * PRECISION else None


def highest(trials: Sequence[Trial]) -> tuple[float | None, str]:
    """The highest rate that held, and what gave way at the next one."""
    held = max((trial.rate for trial in trials if not trial.why), default=None)
    above = [trial for trial in trials if trial.why and trial.rate > (held or 0.0)]
    limit = min(above, key=lambda trial: trial.rate) if above else None
    if limit is None:
        return held, "no rate that was tried failed"
    return held, f"at {limit.rate:.4g} req/s {limit.why}"
