"""The learned policy: of many joint choices, the one whose forecast is worth the most.

It keeps what it remembers, but no clock and no file; where its network runs is its scorer's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import OptionError
from npuops.hostsched.candidates import CandidateOptions, candidates, changes, plan_levels, row_of
from npuops.hostsched.features import RATES, State
from npuops.hostsched.objective import TRUST, Trust, Weights, worth
from npuops.hostsched.outgrown import Outgrown
from npuops.hostsched.plan import Plan, Policy
from npuops.hostsched.scorer import Forecasts, Outlook, Scene, encode, encode_levels, forecasts
from npuops.hostsched.scorer_session import Scorer

_SERVED, _MISSED = RATES.index("served_per_s"), RATES.index("missed_per_s")
_NAMED: Final = 3
EVERY_US: Final = 50_000
"""Scoring takes a CPU ten times as long as asking the rule. In the simulator, looking every 20 ms without hints, 60 ms
between decisions cost nothing that could be told from noise, and 100 ms some points of requests in time."""
SLOWEST_US: Final = 60_000
"""What ships learned from looks 10 to 50 ms apart. At 100 ms it answered less in time than the rule, on the kernel and
in the simulator, and thinking it over takes the time from those that it is there for."""
_KEPT: Final = 8
"""Decisions for which a list of candidates is kept, as long as tasks and plans are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedOptions:
    """How it searches.

    Attributes:
        search: which candidates.
        trust: how far it follows the network where it must guess for whom somebody waits.
        trust_told: the same where applications said so of every task.
        every_us: between decisions; in frames between them the last plan stays. A task that comes or goes, and another
            plan of the proposer, are reasons to decide at once. 0: with every frame.
        slowest_us: between frames; after a longer time the proposer's plan is taken as it is, if there is one.
    """

    search: CandidateOptions = field(default_factory=CandidateOptions)
    trust: Trust = TRUST
    trust_told: Trust = TRUST
    every_us: int = EVERY_US
    slowest_us: int = SLOWEST_US

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: a negative time.
        """
        for name in ("every_us", "slowest_us"):
            if getattr(self, name) < 0:
                raise OptionError(f"the learned policy's {name} is {getattr(self, name)}: no time is negative")


class Learned:
    """One for each run."""

    def __init__(
        self, scorer: Scorer, options: LearnedOptions | None = None, *, proposer: Policy | None = None
    ) -> None:
        """A policy on a scorer, which stays the caller's to close.

        Args:
            scorer: where the network runs.
            options: how it searches.
            proposer: another policy, whose plan is one of the candidates; it is asked with every frame.
        """
        self._scorer = scorer
        self._options = options or LearnedOptions()
        self._proposer = proposer
        self._plan, self._good = Plan(), Plan()
        self._about: object = None
        """Tasks and proposal that were decided about."""
        self._decided_us: int | None = None
        self._looked_us: int | None = None
        self._count = 0
        self._listed: tuple[object, NDArray[np.int8]] | None = None
        self._outgrown = Outgrown()

    @property
    def name(self) -> str:
        """As on the command line."""
        return "learned"

    def decide(self, state: State) -> Plan:
        """What should hold until the next frame.

        Raises:
            DataError, RunError, DeviceError: of the scorer.
        """
        proposal = self._proposer.decide(state) if self._proposer is not None else None
        frame = state.frame
        if not frame.tasks:
            self._plan, self._about = Plan(), None
            return self._plan
        self._remember(state)
        before_us, self._looked_us = self._looked_us, frame.at_us
        if proposal is not None and before_us is not None and frame.at_us - before_us > self._options.slowest_us:
            self._plan, self._about = proposal, None
            return proposal
        about = (tuple(task.id for task in frame.tasks), proposal and proposal.levels)
        waited = self._decided_us is None or frame.at_us - self._decided_us >= self._options.every_us
        if waited or about != self._about:
            self._plan = self._best(state, proposal)
            self._decided_us, self._about = frame.at_us, about
        return self._plan

    def _remember(self, state: State) -> None:
        """A plan under which nothing was late is worth a candidate later on."""
        served, missed = state.rates[:, _SERVED].sum(), state.rates[:, _MISSED].sum()
        if served > 0 and missed == 0 and self._plan.levels:
            self._good = self._plan

    def _best(self, state: State, proposal: Plan | None) -> Plan:
        scene = encode(state, proposal)
        rows = _seen_only(self._candidates(state, proposal), scene)
        outlook = self._scorer.score(scene, encode_levels(scene, rows))
        found = forecasts(outlook)
        moved = changes(rows, row_of(self._plan, state.frame)).astype(np.float64)
        trust = self._options.trust if np.isnan(scene.known).any() else self._options.trust_told
        worths = worth(found.miss_share, found.progress, moved, Weights(below_floor=trust.below_floor))
        best = int(np.argmax(worths))
        if proposal is not None:
            proposed = np.flatnonzero((rows == row_of(proposal, state.frame)).all(axis=1))
            if len(proposed) and worths[best] < worths[proposed[0]] + trust.margin:
                best = int(proposed[0])
        levels = plan_levels(rows[best], state.frame)
        why = _why(state, scene, outlook, found, best)
        return Plan(levels, dict.fromkeys(levels, why), found.of(best), found.of(0), proposal)

    def _candidates(self, state: State, proposal: Plan | None) -> NDArray[np.int8]:
        """Another list now and then: what one missed the next may hold, and making one takes as long as scoring it."""
        turn, self._count = self._count // _KEPT, self._count + 1
        plans = [plan.levels for plan in (self._plan, self._good, proposal) if plan is not None]
        outgrown = self._outgrown.update(state)
        about = (turn, state.frame.tasks, state.frame.host.cpus, plans, outgrown)
        if self._listed is None or self._listed[0] != about:
            search = replace(self._options.search, seed=self._options.search.seed + turn)
            found = candidates(
                state, self._plan, last_good=self._good, proposal=proposal, outgrown=outgrown, options=search
            )
            self._listed = (about, found)
        return self._listed[1]


def _seen_only(rows: NDArray[np.int8], scene: Scene) -> NDArray[np.int8]:
    """What the network has no row for is left alone."""
    if len(scene.picked) == rows.shape[1]:
        return rows
    kept = np.zeros_like(rows)
    kept[:, scene.picked] = rows[:, scene.picked]
    return kept


def _why(state: State, scene: Scene, outlook: Outlook, found: Forecasts, best: int) -> str:
    """For people: what is expected of this plan and of the default, and for whom it is done."""
    waited = [state.frame.tasks[task].command for task in scene.picked[outlook.waits >= 0.5]]
    names = ", ".join(dict.fromkeys(waited[:_NAMED])) + (" …" if len(waited) > _NAMED else "")
    gain = f"late {found.miss_share[0]:.0%} → {found.miss_share[best]:.0%}" + (f" for {names}" if names else "")
    return f"{gain}; slowest other at {found.progress[best]:.0%} of its default, among {len(found.progress)} choices"
