"""Names of rivals, in the order of tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from npuops.eevdf.setting import SchedPolicy

DEFAULT: Final = "default"
AGAIN: Final = "default-again"
"""The default a second time, with the same arrivals: whatever differs is noise."""
STATIC: Final = "static"
FAIR: Final = "fair-static"
STATIC_HERE: Final = "static-here"
FAIR_HERE: Final = "fair-static-here"
RESERVE: Final = "reservations"
REACTIVE: Final = "reactive"
TUNED: Final = "tuned-reactive"
LEARNED: Final = "learned"
ORACLE: Final = "oracle"
ORACLE_IDLE: Final = "oracle-idle"
BOUND: Final = "oracle-fifo"
NAMES: Final = (
    DEFAULT,
    AGAIN,
    STATIC,
    FAIR,
    STATIC_HERE,
    FAIR_HERE,
    RESERVE,
    REACTIVE,
    TUNED,
    LEARNED,
    ORACLE,
    ORACLE_IDLE,
    BOUND,
)
NICE: Final = {f"nice {nice}": nice for nice in (-10, -20)}
"""Of every thread that answers, where real programs are the load."""
WEIGHTS: Final = {f"autogroup {nice}": nice for nice in (-5, -10, -20)}
"""Likewise, of every session that answers."""
SLICES: Final = {"slice 0.1 ms": 100}
"""Likewise, us of every thread that answers."""
BATCH_POLICIES: Final = {"batch SCHED_BATCH": SchedPolicy.BATCH, "batch SCHED_IDLE": SchedPolicy.IDLE}
"""Of every thread that works in bulk."""
BATCH_WEIGHTS: Final = {f"batch autogroup {nice}": nice for nice in (10, 19)}
"""Of every session that works in bulk."""
STATIC_SETTINGS: Final = (*NICE, *SLICES, *WEIGHTS, *BATCH_POLICIES, *BATCH_WEIGHTS)
"""Of real programs."""
PROGRAM_NAMES: Final = (DEFAULT, AGAIN, *STATIC_SETTINGS, RESERVE, REACTIVE, TUNED, LEARNED)
HEARING: Final = " + hints"
"""After the name of one that hears what the apps tell."""
AGENTS: Final = tuple(name + hears for hears in ("", HEARING) for name in (REACTIVE, TUNED, LEARNED))
"""Those that run through the agent, as they are labelled."""


def labelled(name: str, *, hints: bool) -> str:
    """A rival with what it hears."""
    return name + (HEARING if hints else "")


def place_of(label: str, names: Sequence[str] = NAMES) -> tuple[int, bool]:
    """For sorting: as in `names`, without hints first."""
    name = label.removesuffix(HEARING)
    return names.index(name) if name in names else len(names), label != name
