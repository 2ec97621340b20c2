"""One play that rivals are compared in, and what a whole play is worth."""

from __future__ import annotations

from dataclasses import dataclass

from npuops.eevdf.mix import Mix
from npuops.eevdf.rules import Rules
from npuops.hostsched.guard import Guard
from npuops.hostsched.objective import worth
from npuops.hostsched.plan import Policy
from npuops.schedlab.comparison import worst_progress
from npuops.schedlab.episode import play_on
from npuops.schedlab.others import NOBODY, Others
from npuops.schedlab.outcome import Outcome, judge
from npuops.schedlab.simulated_host import SimulatedHost


@dataclass(frozen=True, slots=True)
class Scene:
    """One play that rivals are compared in.

    Attributes:
        mix: who does what.
        seed: of its arrivals.
        rules: of the simulated kernel.
        telling: players that send hints.
        pinned: to its CPUs, on a host that has more.
        period_us: between looks.
        others: who else is on the host.
    """

    mix: Mix
    seed: int
    rules: Rules
    telling: tuple[str, ...]
    pinned: bool
    period_us: int
    others: Others = NOBODY

    def host(self) -> SimulatedHost:
        """At its first instant."""
        return SimulatedHost(
            self.mix, self.seed, self.rules, telling=self.telling, pinned=self.pinned, others=self.others
        )


def outcome_of(scene: Scene, policy: Policy, guard: Guard | None = None) -> Outcome:
    """Play it; without a guard everything passes."""
    return judge(play_on(scene.host(), scene.seed, policy, guard=guard, period_us=scene.period_us), policy.name)


def worth_of_play(outcome: Outcome, default: Outcome) -> float:
    """The objective of a whole play; a mix without requests, or without batch work, loses nothing by it."""
    missed = 0.0 if outcome.slo_share is None else 1.0 - outcome.slo_share
    progress = worst_progress(outcome, default)
    return float(worth(missed, 1.0 if progress is None else progress, 0.0))
