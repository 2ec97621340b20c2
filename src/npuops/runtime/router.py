"""Which device answers next: the one that is done first, be it after a wait; never a fallback that is not allowed.

A request stays in the queue until a device takes it. So to *wait* costs no commitment: if the better device turns sick
meanwhile, the next look decides anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from npuops.runtime.fallback import Verdict
from npuops.runtime.job import NO_DEADLINE
from npuops.runtime.signature import Form

BY_SHAPE: Final = "shape"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device as the choice sees it.

    Attributes:
        device: its name.
        healthy: it takes runs, now or when one of its own is done.
        fallback: it gets only what the policy lets it have.
        credits: runs that it takes now.
        backlog_us: until it begins a run that it is given now, or as soon as it takes one.
        run_us: of this request there.
        batch_us: of the run that it would get of what waits now. This and the next are asked for by `spill_us` alone.
        work_us: until it had worked off all that waits now, alone.
    """

    device: str
    healthy: bool
    fallback: bool
    credits: int
    backlog_us: float
    run_us: float
    batch_us: float = 0.0
    work_us: float = 0.0

    @property
    def done_us(self) -> float:
        """From now until it would have answered."""
        return self.backlog_us + self.run_us


@dataclass(frozen=True, slots=True)
class Choice:
    """The judgement.

    Attributes:
        device: None where there is none.
        wait: it is worth waiting for, but takes nothing now.
        done_us: from now until it would have answered; 0 without a device.
        why: in words; why there is none, or why it is not the first in line.
    """

    device: str | None
    wait: bool
    done_us: float
    why: str


def choose(
    candidates: Sequence[Candidate],
    now_us: int,
    deadline_us: int,
    may_fall_back: Callable[[], Verdict],
    preferred: Sequence[str] = (),
    spill_us: float = 0.0,
) -> Choice:
    """The device for the next request.

    - Of the healthy devices the one that would be done first: a fast one that is busy is waited for where that ends
      sooner than a slow one that is idle. Of equals the first in line.
    - `preferred` (of a shard) decides instead while a device of it can make the deadline.
    - `spill_us` lets the request go to an idle device that answers later than the busy best one would, for the sake of
      those behind it: so much later at most, never past the deadline, and not later than the best one would have
      worked off all that waits. A lone request is never spilled.
    - A fallback device is asked for only where no other device is healthy or can make the deadline, and gets the
      request if the policy lets it. That it would be done sooner is no reason: a CPU beats many an NPU at tiny
      models, and whoever wants it to share the load does not mark it as a fallback.

    Args:
        candidates: in the order of the options.
        now_us: the moment.
        deadline_us: of the request; `NO_DEADLINE` where it has none.
        may_fall_back: the policy's verdict; asked only where it matters.
        preferred: devices, the best first.
        spill_us: see above; 0: never.
    """
    own = [candidate for candidate in candidates if candidate.healthy and not candidate.fallback]
    first = _sharded(own, preferred, now_us, deadline_us) or min(own, key=_done_us, default=None)
    if spill_us > 0 and first is not None and not preferred:
        first = _spilled(own, first, deadline_us - now_us, spill_us) or first
    others = [candidate for candidate in candidates if candidate.healthy and candidate.fallback]
    fallback = min(others, key=_done_us, default=None)
    if fallback is None:
        return _chosen(first, "") if first is not None else Choice(None, False, 0.0, "no device is healthy")
    if first is not None:
        in_time = _in_time(first, now_us, deadline_us)
        if in_time or not _in_time(fallback, now_us, deadline_us):
            return _chosen(first, "")
    verdict = may_fall_back()
    if verdict.allowed:
        why = "no other device is healthy" if first is None else f"{first.device} would miss the deadline"
        return _chosen(fallback, f"{why}; {verdict.why}")
    if first is None:
        return Choice(None, False, 0.0, f"only {fallback.device} is healthy, and {verdict.why}")
    return _chosen(first, verdict.why)


def takes_part(run_us: float, best_us: float, longest_us: float, spill_us: float) -> bool:
    """Whether a device ever gets a request beside the best one while both are well.

    Args:
        run_us: of one request there.
        best_us: of one request on the best device.
        longest_us: of the longest run that batching makes on the best device: so long it may be busy.
        spill_us: in force.
    """
    return run_us <= longest_us + best_us + spill_us


def shard_key(shard: str, form: Form, parameters: Mapping[str, object]) -> str:
    """What a request is sharded by; "" where by nothing.

    Args:
        shard: `shape`, the name of a request parameter, or "" for none.
        form: of the request.
        parameters: of the request.
    """
    if not shard:
        return ""
    if shard == BY_SHAPE:
        return repr(form.key)
    value = parameters.get(shard)
    return "" if value is None else f"{type(value).__name__}:{value}"


@lru_cache(maxsize=4096)
def ranking(key: str, devices: tuple[str, ...]) -> tuple[str, ...]:
    """The devices for a key, best first, by rendezvous hashing (Thaler, Ravishankar 1996).

    When a device leaves, only its own keys move, each to its second; when it comes back, they return. The same in
    every process and after every restart.
    """
    return tuple(sorted(devices, key=lambda device: _weight(key, device), reverse=True))


def _weight(key: str, device: str) -> bytes:
    return hashlib.blake2b(f"{device}\0{key}".encode(), digest_size=8).digest()


def _sharded(
    candidates: Sequence[Candidate], preferred: Sequence[str], now_us: int, deadline_us: int
) -> Candidate | None:
    for device in preferred:
        for candidate in candidates:
            if candidate.device == device and _in_time(candidate, now_us, deadline_us):
                return candidate
    return None


def _spilled(candidates: Sequence[Candidate], best: Candidate, left_us: float, spill_us: float) -> Candidate | None:
    if best.backlog_us <= 0:
        return None
    limit_us = min(best.backlog_us + min(best.run_us + spill_us, best.work_us), left_us)
    idle = [each for each in candidates if each.backlog_us <= 0 < each.credits and each.batch_us <= limit_us]
    return min(idle, key=_batch_us, default=None)


def _chosen(candidate: Candidate, why: str) -> Choice:
    return Choice(candidate.device, candidate.credits <= 0, candidate.done_us, why)


def _in_time(candidate: Candidate, now_us: int, deadline_us: int) -> bool:
    return deadline_us >= NO_DEADLINE or now_us + candidate.done_us <= deadline_us


def _done_us(candidate: Candidate) -> float:
    return candidate.done_us


def _batch_us(candidate: Candidate) -> float:
    return candidate.batch_us
