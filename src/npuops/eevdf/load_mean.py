"""How much a task wanted a CPU of late: a mean that halves every 32 periods of about a millisecond (PELT's)."""

from __future__ import annotations

from typing import Final

from npuops.eevdf import world as at
from npuops.eevdf.compiled import compiled
from npuops.eevdf.world import World

FULL: Final = 1024
_DECAY: Final = tuple(round(0.5 ** (step / 32) * 65536) for step in range(32))
"""What is left after so many periods, of 65536."""


@compiled
def note_load(w: World, task: int) -> None:
    """Bring the mean up to now, before the task changes between awake and asleep."""
    if w.g[at.CPUS] == 1:
        return
    periods = (w.g[at.NOW] - w.e[task, at.LOAD_AT]) >> 20
    if periods == 0:
        return
    w.e[task, at.LOAD_AT] += periods << 20
    goal = FULL if w.e[task, at.AWAKE] else 0
    gap = w.e[task, at.LOAD] - goal
    gap = (gap * _DECAY[periods % 32]) >> 16 if gap >= 0 else -((-gap * _DECAY[periods % 32]) >> 16)
    halves = min(periods // 32, 30)
    gap = gap >> halves if gap >= 0 else -(-gap >> halves)
    w.e[task, at.LOAD] = goal + gap
