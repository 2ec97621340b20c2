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
    """The hint of one player; None if it has done nothing yet.

    One that rests says what it said last, as a server without requests does: the agent would go on believing that
    anyway. Answers are counted on whatever it does between: the agent takes differences.

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
    said = next((act for act in player.acts[phase::-1] if act.doing is not Doing.REST), None)
    if said is None:
        return None
    slo_ns = _slo_ns(mix, player, arrivals_ns)
    served = int(np.count_nonzero(done_ns >= 0))
    missed = int(np.count_nonzero(done_ns - arrivals_ns > slo_ns))
    if said.doing is not Doing.SERVE:
        return Hint(at_us=at_us, kind=KINDS[said.doing], served=served, missed=missed)
    kept = int(np.searchsorted(arrivals_ns, starts[first_kept(player, phase)] * 1000))
    waiting = (arrivals_ns[kept:] + (slo_ns if isinstance(slo_ns, int) else slo_ns[kept:]))[done_ns[kept:] < 0]
    return Hint(
        at_us=at_us,
        kind=KINDS[said.doing],
        slo_us=said.slo_us,
        slack_us=int(waiting.min()) // 1000 - since_us if len(waiting) else None,
        queued=len(waiting),
        served=served,
        missed=missed,
    )


def first_kept(player: Player, phase: int) -> int:
    """The phase from which on requests still wait in this one: those before were dropped when it did something else."""
    first = phase + 1
    while first and player.acts[first - 1].doing is Doing.SERVE:
        first -= 1
    return first


def _slo_ns(mix: Mix, player: Player, arrivals_ns: NDArray[np.int64]) -> NDArray[np.int64] | int:
    """Of each request: that of the phase in which it came; one number if all phases have the same."""
    asked = {act.slo_us for act in player.acts if act.doing is Doing.SERVE}
    if len(asked) <= 1:
        return max(asked, default=0) * 1000
    slo_ns = np.array([act.slo_us * 1000 for act in player.acts], np.int64)
    return slo_ns[np.searchsorted(np.array(mix.starts_us()[1:-1]) * 1000, arrivals_ns, side="right")]
