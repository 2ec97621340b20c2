"""Tasks that follow a written part instead of a role in a mix: work, sleep, wake another, line by line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from npuops.eevdf import world as at
from npuops.eevdf.mix import Mix
from npuops.eevdf.world import Table
from npuops.errors import OptionError

_THENS = (at.UNTIL, at.SPAN, at.CALL, at.WAKE, at.EXIT)


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What every task of a mix does, in place of its acts.

    Attributes:
        lines: of each player, int64 of shape (lines, 3): CPU time in ns (`world.NEVER`: without end), what it ends with
            (`world.UNTIL`, `SPAN`, `CALL`, `WAKE`, `EXIT`), and of that the moment (ns since the mix began), the span
            (ns) or the player. The first one has no work and tells UNTIL when it sleeps; the last one is without end,
            or an EXIT.
        pinned: CPU by player, for tasks above the fair class.
        first_tick_ns: when the first tick is; None for chance.
    """

    lines: Sequence[Table]
    pinned: Mapping[int, int] = field(default_factory=dict)
    first_tick_ns: int | None = None

    def check(self, mix: Mix, tick_ns: int) -> None:
        """Refuse parts that nobody could follow: compiled code looks nothing up twice.

        Raises:
            OptionError: parts for other players, a line that means nothing, no end, a CPU or tick that is not there.
        """
        if len(self.lines) != len(mix.players):
            raise OptionError(f"{len(self.lines)} parts for {len(mix.players)} players of {mix.name}")
        for player, lines in zip(mix.players, self.lines, strict=True):
            if lines.ndim != 2 or lines.shape[1] != 3 or not len(lines) or lines.dtype != np.int64:
                raise OptionError(f"the part of {player.name} is no table of three columns")
            work, then, what = lines.T
            wakes = then == at.WAKE
            wrong = [
                lines[0, :2].tolist() != [0, at.UNTIL],
                lines[-1, 0] < at.NEVER and lines[-1, 1] != at.EXIT,
                (work < 0).any() or not np.isin(then, _THENS).all() or (what < 0).any(),
                (what[wakes] >= len(mix.players)).any(),
            ]
            if any(wrong):
                raise OptionError(f"the part of {player.name} cannot be followed")
        if not all(0 <= cpu < mix.cpus for cpu in self.pinned.values()):
            raise OptionError(f"a task is pinned to a CPU that {mix.name} does not have")
        if self.first_tick_ns is not None and not 0 <= self.first_tick_ns < tick_ns:
            raise OptionError(f"the first tick is at {self.first_tick_ns} ns, not within one of {tick_ns} ns")
