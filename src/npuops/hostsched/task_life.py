"""What the reactive rule takes a task for: a table of (role, happening) → role, and nothing outside of it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final


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
    WORKS = 5
    """It slept again and again, each time after more work than an interactive task would do."""


TABLE: Final = """
role         nothing      sleeps       computes     due    over  works
unknown      unknown      interactive  hog          -      -     unknown
interactive  interactive  interactive  hog          -      -     unknown
hog          hog          interactive  hog          probe  -     hog
probe        probe        interactive  probe        -      hog   probe
"""
"""`-`: no such pair. A hog comes back by sleeping, or through a probe."""

_NONE: Final = -1


def _parsed(table: str) -> tuple[tuple[int, ...], ...]:
    _, *rows = (line.split() for line in table.strip().splitlines())
    return tuple(tuple(_NONE if word == "-" else int(Role[word.upper()]) for word in row[1:]) for row in rows)


NEXT: Final = _parsed(TABLE)


def after(roles: Sequence[int], happenings: Sequence[int]) -> list[int]:
    """The table's answer for each task.

    Raises:
        LookupError: the table has no such pair.
    """
    found = [NEXT[role][happening] for role, happening in zip(roles, happenings, strict=True)]
    if _NONE in found:
        row = found.index(_NONE)
        raise LookupError(f"{Happening(happenings[row]).name} cannot happen to a task in role {Role(roles[row]).name}")
    return found
