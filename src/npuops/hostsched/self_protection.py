"""The agent's own place on the CPU: the one it was started in, and a better one only while the kernel lets it wait.

A reservation is safest, since it counts against everybody, whatever autogroup or cgroup they are in, and for that very
reason it harms those whom the agent is there for: beside `make -j` memcached lost 1.0 to 1.6 points of requests in time
to it, however short its pieces, and nothing where the agent had none (docs/decisions/0020). Nice -20 counts within the
agent's own group only. What it starts gets neither (reset-on-fork).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from npuops.eevdf.setting import SchedPolicy
from npuops.hostsched.attributes import RESET_ON_FORK, Attributes
from npuops.hostsched.knobs import KnobError, read_attributes, write_attributes
from npuops.hostsched.own_need import OwnNeed

SHARE: Final = 5
"""A fifth of a CPU is promised to it, at most. A step that used its runtime up would wait for its next period, so this
is well above what steps take; what is not used is everybody's."""
AS_STARTED: Final = "as it was started"
_SCHEDSTAT: Final = "/proc/thread-self/schedstat"
_ADVICE: Final = "mount /proc, and take a kernel with CONFIG_SCHED_INFO"
_ROOM: Final = 100
"""Bytes: three numbers of at most 20 digits."""


@dataclass(frozen=True, slots=True)
class _Rung:
    words: str
    attributes: Attributes


class SelfProtection:
    """Of the thread that made it; `protected` puts back what it had."""

    def __init__(self, before: Attributes, period_us: int, waited_ns: Callable[[], int]) -> None:
        """Nothing is changed yet.

        Args:
            before: what the thread has.
            period_us: of the reservation.
            waited_ns: for a CPU so far, ready to run.
        """
        self.words = AS_STARTED
        """How it stands, for people."""
        self.changed = False
        self._need = OwnNeed()
        self._ladder = _ladder(before, period_us)
        self._waited_ns = waited_ns
        self._last_ns = waited_ns()

    def follow(self, at_us: int) -> str:
        """Take the place that is needed now; why, if it is another one, else "".

        Raises:
            KnobError: the kernel does not take back what it had.
        """
        now_ns = self._waited_ns()
        waited_us, self._last_ns = (now_ns - self._last_ns) // 1000, now_ns
        before = self._need.rung
        rung = self._need.after(at_us, waited_us, len(self._ladder) - 1)
        if rung == before:
            return ""
        if rung < before:
            write_attributes(0, self._ladder[rung].attributes)
            self.words = self._ladder[rung].words
            return "it may do with less again"
        why = f"it waited {waited_us / 1000:.1f} ms for a CPU"
        try:
            write_attributes(0, self._ladder[rung].attributes)
        except KnobError as error:
            refused, self._ladder = self._ladder[rung], self._ladder[:rung]
            self._need.after(at_us, 0, rung - 1)
            return f"{why}, and {refused.words} was refused: {error.message}"
        self.words, self.changed = self._ladder[rung].words, True
        return why


@contextmanager
def protected(period_us: int, waited_ns: Callable[[], int] | None = None) -> Iterator[SelfProtection]:
    """Let the calling thread protect itself while within, and put back what it had.

    Args:
        period_us: of its reservation, should it need one.
        waited_ns: what it waited for a CPU so far; None: as the kernel counts it.

    Raises:
        KnobError: the kernel does not tell what the thread has or waits, or does not take that back.
    """
    before = read_attributes(0)
    with _own_wait() as wait:
        protection = SelfProtection(before, period_us, waited_ns or wait)
        try:
            yield protection
        finally:
            if protection.changed:
                write_attributes(0, before)


def _ladder(before: Attributes, period_us: int) -> tuple[_Rung, ...]:
    started = _Rung(AS_STARTED, before)
    if not before.fair:
        return (started,)
    flags, period_ns = before.flags | RESET_ON_FORK, period_us * 1000
    return (
        started,
        _Rung("nice -20", Attributes(SchedPolicy.OTHER, flags, nice=-20)),
        _Rung(
            f"{period_us // SHARE} of every {period_us} us reserved",
            Attributes(
                SchedPolicy.DEADLINE, flags, runtime_ns=period_ns // SHARE, deadline_ns=period_ns, period_ns=period_ns
            ),
        ),
    )


@contextmanager
def _own_wait() -> Iterator[Callable[[], int]]:
    """What this thread waited for a CPU so far, in ns, as the kernel counts it."""
    try:
        descriptor = os.open(_SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KnobError(f"{_SCHEDSTAT} cannot be read: {error.strerror}", advice=_ADVICE) from None
    try:
        yield lambda: int(os.pread(descriptor, _ROOM, 0).split()[1])
    finally:
        os.close(descriptor)
