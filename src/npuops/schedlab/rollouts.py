"""Makes what the scorer is trained on: from one instant, every candidate is tried out, and what comes of it noted.

All candidates of a state meet the same arrivals (common random numbers), so the differences between them are theirs.
A knob's effect shows within a tenth of a second: there is no credit to assign over longer times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.eevdf.mix import Doing
from npuops.hostsched.candidates import CandidateOptions, candidates, plan_levels
from npuops.hostsched.features import Features, State
from npuops.hostsched.frame import RUN_NS
from npuops.hostsched.orders import orders_for
from npuops.hostsched.plan import Plan, Policy
from npuops.hostsched.scorer import SHAPE, encode
from npuops.hostsched.scorer_network import ABSENT
from npuops.schedlab.consequence import Consequence, Watch
from npuops.schedlab.samples import Samples
from npuops.schedlab.simulated_host import SimulatedHost

MOST_PROGRESS: Final = 4.0
LEAST_RUN: Final = 0.01
"""A task that ran less than this share of the window by default has no progress to compare with."""
HORIZON_US: Final = 200_000
LEAST_US: Final = 60_000
"""A forecast is of the next 200 ms, and less than 60 tell nothing."""
FIRST_FRAMES: Final = 3
"""Features of the first looks are not worth learning from: the guard lets nobody act on them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutOptions:
    """How states are gathered.

    Attributes:
        candidates: tried in each state, the default included.
        horizon_us: how long each is watched, at most: a window ends where somebody's role changes, for by then
            another decision would be made.
        least_us: a state with less time than that until a role changes is not worth trying.
        period_us: between looks, and decisions of whoever acts meanwhile.
        share: of the looks become states; few of each mix and many mixes teach more than the other way round.
    """

    candidates: int = 32
    horizon_us: int = HORIZON_US
    least_us: int = LEAST_US
    period_us: int = 20_000
    share: float = 0.06


class Wanderer:
    """Tries something legal for a while, then something else: shows the scorer states that no sane policy reaches."""

    name = "wanderer"

    def __init__(self, seed: int) -> None:
        """Deterministic by the seed."""
        self._random = np.random.default_rng(seed)
        self._left = 0
        self._plan = Plan()

    def decide(self, state: State) -> Plan:
        """The same as before, or one of 32 candidates."""
        self._left -= 1
        if self._left < 0:
            self._left = int(self._random.integers(3, 20))
            options = CandidateOptions(count=32, seed=int(self._random.integers(1 << 30)))
            rows = candidates(state, self._plan, options=options)
            self._plan = Plan(plan_levels(rows[self._random.integers(len(rows))], state.frame))
        return self._plan


def gather(
    host: SimulatedHost,
    policy: Policy,
    options: RolloutOptions,
    seed: int,
    mix_number: int,
    *,
    proposer: Policy | None = None,
) -> Samples | None:
    """Play the host's mix to its end with this policy, and try all candidates in some of the states on the way.

    Args:
        host: at its first instant.
        policy: acts.
        options: how often, how many, how long.
        seed: of the choice of states and candidates.
        mix_number: for `Samples.mix`.
        proposer: sees every state; what it would do is one of the candidates.

    Returns:
        One row for each state; None if there was none.
    """
    random = np.random.default_rng([seed, 1])
    rows = []
    for state, plan in _played(host, policy, options.period_us):
        proposal = proposer.decide(state) if proposer is not None else None
        window_us = min(options.horizon_us, host.until_change_us())
        ready = (state.seen >= FIRST_FRAMES).all() and window_us >= options.least_us
        if ready and random.random() < options.share:
            search = CandidateOptions(count=options.candidates, seed=int(random.integers(1 << 30)))
            found = candidates(state, plan, proposal=proposal, options=search)
            found = np.concatenate([found, np.tile(found[:1], (options.candidates - len(found), 1))])
            rows.append({**_labels(host, state, found, window_us), **_inputs(state, proposal, found, mix_number)})
    if not rows:
        return None
    return Samples(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})


def _played(host: SimulatedHost, policy: Policy, period_us: int) -> Iterator[tuple[State, Plan]]:
    """Look, decide, act, again and again until the mix ends; gives what was seen and what held until then.

    Whoever takes these may copy the host in the state, before the new plan is put to work.
    """
    features, current = Features(), Plan()
    while host.now_us + period_us <= host.mix.duration_us:
        host.run_until(host.now_us + period_us)
        state = features.update(host.frame())
        yield state, current
        current = policy.decide(state)
        host.apply(orders_for(current, state.frame))


def _inputs(state: State, proposal: Plan | None, found: NDArray[np.int8], mix_number: int) -> dict[str, NDArray[Any]]:
    """What the network sees."""
    scene = encode(state, proposal)
    slots, count = SHAPE.slots, len(state.frame.tasks)
    tasks = np.zeros((slots, SHAPE.features), np.float32)
    history = np.zeros((slots, SHAPE.frames, SHAPE.history), np.float32)
    tasks[:count], history[:count] = scene.tasks[:count], scene.history[:count]
    return {
        "tasks": tasks,
        "history": history,
        "host": scene.host,
        "levels": _wide(found, slots, np.int8, ABSENT),
        "mix": np.array(mix_number, np.int32),
    }


def _labels(host: SimulatedHost, state: State, found: NDArray[np.int8], window_us: int) -> dict[str, NDArray[Any]]:
    """What came of each candidate."""
    tried: dict[bytes, tuple[Consequence, NDArray[np.int64]]] = {}
    for row in found:
        if row.tobytes() not in tried:
            tried[row.tobytes()] = _tried(host, state, row, window_us)
    watched = [tried[row.tobytes()] for row in found]
    miss, progress = (np.stack([getattr(each, name) for each, _ in watched]) for name in ("miss", "progress"))
    asked = np.stack([each.due + each.late_before for each, _ in watched])
    turns = np.array([each.turns for each, _ in watched])
    ran, acts, slots = watched[0][1], host.acts(), SHAPE.slots
    waits = np.array([act.doing is Doing.SERVE for act in acts])
    batch = np.array([act.doing not in (Doing.SERVE, Doing.REST) for act in acts])
    counts = batch & (progress[0] > 0) & (ran > LEAST_RUN * window_us * 1000)
    ratio = progress / np.maximum(progress[:1], 1)
    return {
        "miss": _wide(miss, slots),
        "miss_weight": _wide(np.sqrt(asked), slots),
        "progress": _wide(np.where(counts, np.minimum(ratio, MOST_PROGRESS), 0), slots),
        "progress_weight": _wide(np.broadcast_to(counts, progress.shape), slots),
        "waits": _wide(waits[None], slots)[0],
        "waits_weight": _wide((waits | batch)[None], slots)[0],
        "switches": np.log2((turns + 1) / (turns[0] + 1)).astype(np.float32),
    }


def _wide(array: NDArray[Any], slots: int, dtype: Any = np.float32, fill: int = 0) -> NDArray[Any]:
    """A column for each slot of the network."""
    found = np.full((len(array), slots), fill, dtype)
    found[:, : array.shape[1]] = array
    return found


def _tried(
    host: SimulatedHost, state: State, row: NDArray[np.int8], window_us: int
) -> tuple[Consequence, NDArray[np.int64]]:
    """What comes of one candidate, and the CPU time that each task had."""
    other = host.copy()
    watch = Watch(other)
    other.apply(orders_for(Plan(plan_levels(row, state.frame)), state.frame))
    other.run_until(other.now_us + window_us)
    ran = other.simulation.counters()[:, RUN_NS] - state.frame.counters[:, RUN_NS]
    return watch.consequence(other), ran
