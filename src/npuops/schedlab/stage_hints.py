"""What the apps of a mix would tell of themselves at this moment: the same on the stage as in the simulator."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.eevdf.mix import Doing, Mix, Player
from npuops.hostsched.hint import Hint, Kind

KINDS: Final[Mapping[Doing, Kind]] = MappingProxyType(
    {
        Doing.SERVE: Kind.LATENCY,
        Doing.PIPE: Kind.BACKGROUND,
        Doing.COMPUTE: Kind.BATCH,
        Doing.SCAN: Kind.BATCH,
        Doing.CYCLE: Kind.BATCH,
    }
)


def hint_of(
    mix: Mix, player: Player, arrivals_ns: NDArray[np.int64], done_ns: NDArray[np.int64], since_us: int, at_us: int
) -> Hint | None:
    """The hint of one player; None while it rests.

    Args:
        mix: what is played.
        player: one of its players.
        arrivals_ns: of its requests so far, since the mix began.
        done_ns: when each was answered; -1 if it is not.
        since_us: now, since the mix began.
        at_us: now, monotonic.
    """
    starts = mix.starts_us()
    phase = min(max(0, int(np.searchsorted(starts, since_us, side="right")) - 1), len(mix.phases_us) - 1)
    act = player.acts[phase]
    kind = KINDS.get(act.doing)
    if kind is None or act.doing is not Doing.SERVE:
        return None if kind is None else Hint(at_us=at_us, kind=kind)
    while phase and player.acts[phase - 1].doing is Doing.SERVE:  # what waits was not dropped in between
        phase -= 1
    waiting = arrivals_ns[(done_ns < 0) & (arrivals_ns >= starts[phase] * 1000)]
    answered = done_ns >= 0
    return Hint(
        at_us=at_us,
        kind=kind,
        slo_us=act.slo_us,
        slack_us=int(waiting[0]) // 1000 + act.slo_us - since_us if len(waiting) else None,
        queued=len(waiting),
        served=int(answered.sum()),
        missed=int((done_ns[answered] - arrivals_ns[answered] > act.slo_us * 1000).sum()),
    )
