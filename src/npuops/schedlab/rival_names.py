"""Names of rivals, in the order of tables."""

from __future__ import annotations

from typing import Final

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
HEARING: Final = " + hints"
"""After the name of one that hears what the apps tell."""
AGENTS: Final = tuple(name + hears for hears in ("", HEARING) for name in (REACTIVE, TUNED, LEARNED))
"""Those that run through the agent, as they are labelled."""


def place_of(label: str) -> tuple[int, bool]:
    """For sorting: as in `NAMES`, without hints first."""
    name = label.removesuffix(HEARING)
    return NAMES.index(name) if name in NAMES else len(NAMES), label != name
