"""How busy CPUs were, whoever it was: /proc/stat."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

from npuops.errors import DataError

_IDLE: Final = slice(3, 5)
"""Columns idle and iowait; guest time is already in user."""
_ALL: Final = 8


def read_idle_us(cpus: Collection[int], path: Path = Path("/proc/stat")) -> int:
    """Time that these CPUs had nothing to do since boot, in us; steal is not idle.

    Raises:
        DataError: the file lacks one of them.
    """
    found = {}
    for line in path.read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(" ")
        number = name.removeprefix("cpu")
        if name.startswith("cpu") and number.isdecimal() and int(number) in cpus:
            found[int(number)] = sum(int(word) for word in rest.split()[:_ALL][_IDLE])
    if missing := sorted(set(cpus) - set(found)):
        raise DataError(f"{path} says nothing of CPU {missing[0]}", advice="was it taken offline?")
    return sum(found.values()) * 1_000_000 // os.sysconf("SC_CLK_TCK")


def clean_share(idle_us: int, ours_us: int, window_us: int, cpus: int) -> float:
    """Of the CPU time in a window, what was ours or idle: 1 when nobody else took any.

    Args:
        idle_us: of these CPUs in the window.
        ours_us: CPU time of our tasks in the window.
        window_us: its length.
        cpus: how many.
    """
    whole = window_us * cpus
    return min(1.0, max(0.0, (idle_us + ours_us) / whole)) if whole > 0 else 1.0


def read_switches(path: Path = Path("/proc/stat")) -> int:
    """Context switches of the whole machine since boot.

    Raises:
        DataError: the file does not tell.
    """
    for line in path.read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(" ")
        if name == "ctxt":
            return int(rest)
    raise DataError(f"{path} says nothing of context switches", advice="is this Linux?")
