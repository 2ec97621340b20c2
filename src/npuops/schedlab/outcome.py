"""What a play came to, in figures: the same for the kernel and for the simulator."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from npuops.eevdf.mix import Doing, Player
from npuops.schedlab.recording import UNSERVED, Origin, Record, Recording

SCHEMA: Final = "npuops.schedlab-outcome/1"
CLEAN: Final = 0.95
"""A play is told apart when others took more of its CPUs than this leaves."""
BATCH: Final = frozenset({Doing.COMPUTE, Doing.SCAN, Doing.CYCLE, Doing.PIPE})
"""Doings whose progress counts."""

Count = Annotated[int, Meta(ge=0)]
Amount = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One player in one phase.

    Attributes:
        player: its name.
        phase: from 0.
        doing: what it did.
        arrivals: requests that arrived in this phase.
        served: of these, answered.
        in_slo: of these, answered within the SLO. What was never answered is a miss.
        p50_us: of the response times; one that was never answered counts as the time until it was dropped.
        p99_us: likewise.
        max_us: likewise. All three are None without arrivals.
        progress: us of useful work, turns for a pipe.
        cpu_us: CPU time.
        voluntary: switches because it had nothing to do.
        involuntary: switches because another one's turn came.
    """

    player: str
    phase: Count
    doing: Doing
    arrivals: Count
    served: Count
    in_slo: Count
    p50_us: Amount | None
    p99_us: Amount | None
    max_us: Amount | None
    progress: Amount
    cpu_us: Count
    voluntary: Count
    involuntary: Count


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One play.

    Attributes:
        mix: name of the mix.
        seed: of its arrivals.
        setting: what ruled: `default`, the name of a policy, or of a static setting.
        origin: kernel or simulator.
        duration_us: of all phases.
        clean_share: of the mix's CPU time that nobody else took; None in the simulator.
        p50_us: of all response times; None without requests.
        p99_us: likewise.
        parts: of each player in each phase.
        schema: of this document.
    """

    mix: str
    seed: int
    setting: str
    origin: Origin
    duration_us: Count
    clean_share: Share | None
    p50_us: Amount | None
    p99_us: Amount | None
    parts: tuple[Part, ...]
    schema: str = SCHEMA

    @property
    def slo_by_phase(self) -> dict[int, float]:
        """Share of the requests answered within their SLO, for each phase that has any."""
        arrivals: defaultdict[int, int] = defaultdict(int)
        kept: defaultdict[int, int] = defaultdict(int)
        for part in self.parts:
            arrivals[part.phase] += part.arrivals
            kept[part.phase] += part.in_slo
        return {phase: kept[phase] / count for phase, count in arrivals.items() if count}

    @property
    def slo_share(self) -> float | None:
        """Mean over the phases with requests; None without."""
        shares = list(self.slo_by_phase.values())
        return sum(shares) / len(shares) if shares else None

    @property
    def switches(self) -> int:
        """Of all tasks, both kinds."""
        return sum(part.voluntary + part.involuntary for part in self.parts)

    @property
    def cpu_us(self) -> int:
        """CPU time of all tasks."""
        return sum(part.cpu_us for part in self.parts)

    @property
    def is_clean(self) -> bool:
        """Whether the mix had its CPUs for itself, nearly."""
        return self.clean_share is None or self.clean_share >= CLEAN


def judge(recording: Recording, setting: str = "default") -> Outcome:
    """The figures of a recording; `setting` names what ruled."""
    mix = recording.mix
    edges = np.array(mix.starts_us(), np.int64) * 1000
    parts: list[Part] = []
    pooled: list[NDArray[np.float64]] = []
    for player, record in zip(mix.players, recording.records, strict=True):
        answered = record.done_ns != UNSERVED
        until = np.where(answered, record.done_ns, _dropped_ns(player, edges, record.arrivals_ns))
        response_us = (until - record.arrivals_ns) / 1000
        pooled.append(response_us)
        for phase in range(len(mix.phases_us)):
            here = slice(*np.searchsorted(record.arrivals_ns, edges[phase : phase + 2]))
            parts.append(_part(player, phase, record, response_us[here], answered[here]))
    whole = np.concatenate(pooled)
    return Outcome(
        mix=mix.name,
        seed=recording.seed,
        setting=setting,
        origin=recording.origin,
        duration_us=mix.duration_us,
        clean_share=recording.clean_share,
        p50_us=_quantile(whole, 0.5),
        p99_us=_quantile(whole, 0.99),
        parts=tuple(parts),
    )


def _part(
    player: Player, phase: int, record: Record, response_us: NDArray[np.float64], answered: NDArray[np.bool_]
) -> Part:
    act = player.acts[phase]
    return Part(
        player=player.name,
        phase=phase,
        doing=act.doing,
        **tally(response_us, answered, act.slo_us),
        progress=float(record.progress[phase]),
        cpu_us=int(record.cpu_ns[phase]) // 1000,
        voluntary=int(record.voluntary[phase]),
        involuntary=int(record.involuntary[phase]),
    )


def tally(response_us: NDArray[np.float64], answered: NDArray[np.bool_], slo_us: int) -> dict[str, Any]:
    """The fields of an outcome that are about requests.

    Args:
        response_us: float64, one for each: until its answer, or until it was given up.
        answered: bool, one for each.
        slo_us: an answer later than this is a miss.
    """
    return {
        "arrivals": len(response_us),
        "served": int(answered.sum()),
        "in_slo": int((answered & (response_us <= slo_us)).sum()),
        "p50_us": _quantile(response_us, 0.5),
        "p99_us": _quantile(response_us, 0.99),
        "max_us": _quantile(response_us, 1.0),
    }


def _dropped_ns(player: Player, edges: NDArray[np.int64], arrivals_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """When what waits is given up: at the end of the phase, or of the last one in a row in which it serves."""
    drops = edges[1:].copy()
    for phase, (act, following) in reversed(list(enumerate(pairwise(player.acts)))):
        if act.doing is Doing.SERVE and following.doing is Doing.SERVE:
            drops[phase] = drops[phase + 1]
    found: NDArray[np.int64] = drops[np.searchsorted(edges[1:-1], arrivals_ns, side="right")]
    return found


def _quantile(values: NDArray[np.float64], share: float) -> float | None:
    """The smallest value that so many do not exceed: one that was measured, none between two."""
    return float(np.quantile(values, share, method="inverted_cdf")) if len(values) else None


def write_json(outcome: msgspec.Struct) -> bytes:
    """As a document of one line."""
    return msgspec.json.encode(outcome) + b"\n"
