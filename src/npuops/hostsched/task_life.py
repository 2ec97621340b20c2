"""What the reactive rule takes a task for: a table of (role, happening) → role, and nothing outside of it."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray


class Role(IntEnum):
    """What a task is taken for."""

    UNKNOWN = 0
    """Too little seen."""
    INTERACTIVE = 1
    """It works a little and sleeps, or its application says that somebody waits."""
    HOG = 2
    """It works on and on, or its application says that nobody waits. Lowered while somebody interactive is there."""
    PROBE = 3
    """A hog at normal for a moment: one that only starved shows it by sleeping."""


class Happening(IntEnum):
    """What became of a task in a window."""

    NOTHING = 0
    """That tells anything."""
    SLEEPS = 1
    """It slept after little work."""
    COMPUTES = 2
    """It worked longer than an interactive task would."""
    DUE = 3
    """It is time to see whether it only starves."""
    OVER = 4
    """The moment has passed."""


TABLE: Final = """
role         nothing      sleeps       computes     due    over
unknown      unknown      interactive  hog          -      -
interactive  interactive  interactive  hog          -      -
hog          hog          interactive  hog          probe  -
probe        probe        interactive  probe        -      hog
"""
"""`-`: no such pair. A hog comes back by sleeping, or through a probe."""

_NONE: Final = -1


def _parsed(table: str) -> NDArray[np.int8]:
    _, *rows = (line.split() for line in table.strip().splitlines())
    return np.array([[_NONE if word == "-" else Role[word.upper()] for word in row[1:]] for row in rows], np.int8)


NEXT: Final = _parsed(TABLE)


def after(roles: NDArray[np.int8], happenings: NDArray[np.int8]) -> NDArray[np.int8]:
    """The table's answer for each task.

    Raises:
        LookupError: the table has no such pair.
    """
    found: NDArray[np.int8] = NEXT[roles, happenings]
    if (found == _NONE).any():
        row = int(np.argmin(found))
        raise LookupError(f"{Happening(happenings[row]).name} cannot happen to a task in role {Role(roles[row]).name}")
    return found
