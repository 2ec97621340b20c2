"""The agent's own place on the CPU: late exactly when needed is of no use, so it goes first, and takes little.

A small reservation is best, since it counts against everybody, whatever autogroup or cgroup they are in; where the
kernel refuses one, nice -20 counts at least within ours. What it starts gets neither (reset-on-fork).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from npuops.eevdf.setting import SchedPolicy
from npuops.hostsched.attributes import RESET_ON_FORK, Attributes
from npuops.hostsched.knobs import KnobError, read_attributes, write_attributes

SHARE: Final = 5
"""A fifth of a CPU is promised to it. A step that used its runtime up would wait for its next period, so this is well
above what steps take; what is not used is everybody's."""
_FAIR: Final = frozenset({SchedPolicy.OTHER, SchedPolicy.BATCH, SchedPolicy.IDLE})


@dataclass(frozen=True, slots=True)
class Protection:
    """How it stands.

    Attributes:
        words: for people.
        given: what the kernel took; None if nothing.
    """

    words: str
    given: Attributes | None


@contextmanager
def protected(period_us: int) -> Iterator[Protection]:
    """Protect the calling thread while within, and put back what it had; go on unprotected where it is not permitted.

    Raises:
        KnobError: the kernel does not tell what the thread has, or does not take that back.
    """
    before = read_attributes(0)
    if before.policy not in _FAIR:
        yield Protection("as it was started: its policy is set already", None)
        return
    protection = _protect(before, period_us)
    try:
        yield protection
    finally:
        if protection.given is not None:
            write_attributes(0, before)


def _protect(before: Attributes, period_us: int) -> Protection:
    flags = before.flags | RESET_ON_FORK
    period_ns = period_us * 1000
    reservation = Attributes(
        SchedPolicy.DEADLINE, flags, runtime_ns=period_ns // SHARE, deadline_ns=period_ns, period_ns=period_ns
    )
    why = []
    for words, wanted in (
        (f"{period_us // SHARE} of every {period_us} us reserved", reservation),
        ("nice -20", Attributes(SchedPolicy.OTHER, flags, nice=-20)),
    ):
        try:
            write_attributes(0, wanted)
        except KnobError as error:
            why.append(error.message)
        else:
            return Protection(words, wanted)
    return Protection(f"none: {why[-1]}", None)
