"""How far batch work gets: each meter reads what the program itself counts, or what the kernel counts of it."""

from __future__ import annotations

import mmap
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from npuops.errors import ToolchainCrashError, ToolchainTimeoutError
from npuops.schedlab.process_family import family

_UNDER_WAY_S: Final = 60.0
_LOOK_S: Final = 0.02


class Meter(Protocol):
    """Reads one batch program's progress.

    Attributes:
        unit: of what it counts.
    """

    unit: str

    def await_first(self) -> None:
        """Until the work is under way."""
        ...

    def begin(self) -> None:
        """From now on it counts."""
        ...

    def per_s(self) -> float:
        """What was done since then, of each second."""
        ...


class CountMeter:
    """Reads a number that only grows."""

    def __init__(self, unit: str, count: Callable[[], int]) -> None:
        """`count` reads it."""
        self.unit = unit
        self._count = count
        self._from = self._from_ns = 0

    def await_first(self) -> None:
        """Until the number is not what it was.

        Raises:
            ToolchainTimeoutError: it stays.
        """
        before, until = self._count(), time.monotonic() + _UNDER_WAY_S
        while self._count() == before:
            if time.monotonic() > until:
                raise ToolchainTimeoutError(f"the batch work is not under way after {_UNDER_WAY_S:g} s: no {self.unit}")
            time.sleep(_LOOK_S)

    def begin(self) -> None:
        """From now on it counts."""
        self._from, self._from_ns = self._count(), time.monotonic_ns()

    def per_s(self) -> float:
        """What was done since then, of each second."""
        now, now_ns = self._count(), time.monotonic_ns()
        return max(now - self._from, 0) * 1e9 / max(now_ns - self._from_ns, 1)


class RateMeter:
    """Reads rates that a program prints again and again, each of the time since the one before."""

    def __init__(self, unit: str, log: Callable[[], str], pattern: str) -> None:
        """`log` is all that it printed; the first group of `pattern` is a rate."""
        self.unit = unit
        self._log = log
        self._pattern = re.compile(pattern)
        self._from = 0

    def await_first(self) -> None:
        """Until it printed one more.

        Raises:
            ToolchainTimeoutError: it does not.
        """
        seen, until = len(self._rates()), time.monotonic() + _UNDER_WAY_S
        while len(self._rates()) == seen:
            if time.monotonic() > until:
                raise ToolchainTimeoutError(f"no {self.unit} were told within {_UNDER_WAY_S:g} s")
            time.sleep(_LOOK_S)

    def begin(self) -> None:
        """From now on it counts."""
        self._from = len(self._rates())

    def per_s(self) -> float:
        """Mean of the rates of the times that lie within the window: the first one began before it.

        Raises:
            ToolchainCrashError: there is none.
        """
        rates = self._rates()[self._from + 1 :]
        if not rates:
            raise ToolchainCrashError(f"no {self.unit} were told in this window", advice="play for 5 s at least")
        return sum(rates) / len(rates)

    def _rates(self) -> list[float]:
        return [float(word) for word in self._pattern.findall(self._log())]


def lines_of(path: Path) -> Callable[[], int]:
    """How many lines a file has."""
    return lambda: path.read_bytes().count(b"\n")


def words_of(shared: mmap.mmap) -> Callable[[], int]:
    """The sum of the int64 words of a memory file that processes count in."""
    return lambda: int(np.frombuffer(shared, np.int64).sum())


def kernel_count(pid: int, field: str) -> Callable[[], int]:
    """A line of /proc/PID/io of a process, its descendants, and those of them that ended and were waited for.

    Args:
        pid: the process.
        field: `syscw`: writing calls; `rchar`: bytes read.
    """
    return lambda: sum(_io(one, field) for one in family(pid))


def _io(pid: int, field: str) -> int:
    try:
        descriptor = os.open(f"/proc/{pid}/io", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, 4096).decode("ascii")
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has just ended
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{field}:")), 0)
