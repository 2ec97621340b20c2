"""The oracle: it knows who serves in which phase, and when the next one begins. For benchmarks: nobody can be it."""

from __future__ import annotations

from npuops.eevdf.mix import Doing, Mix
from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.hostsched.levels import BOOST, DEMOTE, IDLE
from npuops.hostsched.plan import NORMAL, Level

FIRST = Level("fifo", Setting(SchedPolicy.FIFO, rt_priority=1), group_nice=None)
"""Before everything that shares by weight. npuops never does this: one that spins takes the host with it."""


def others_last(mix: Mix, phase: int) -> tuple[Level, ...]:
    """While anybody serves, all others are at nice 19."""
    serving = _serving(mix, phase)
    return tuple(NORMAL if serves or not any(serving) else DEMOTE for serves in serving)


def others_idle(mix: Mix, phase: int) -> tuple[Level, ...]:
    """While anybody serves, that one is boosted and all others are idle: as far as the agent's own levels go."""
    serving = _serving(mix, phase)
    return tuple((BOOST if serves else IDLE) if any(serving) else NORMAL for serves in serving)


def serving_first(mix: Mix, phase: int) -> tuple[Level, ...]:
    """Who serves goes before everybody: an upper bound for every scheduler."""
    return tuple(FIRST if serves else NORMAL for serves in _serving(mix, phase))


def _serving(mix: Mix, phase: int) -> list[bool]:
    return [player.acts[phase].doing is Doing.SERVE for player in mix.players]
