"""Rivals in the simulator: scripts at the start of each phase, policies with the agent's loop, guard and orders."""

from __future__ import annotations

from typing import Final

from npuops.eevdf.mix import Mix
from npuops.eevdf.rules import Rules
from npuops.eevdf.simulation import Simulation
from npuops.hostsched.familiarity import Ranges
from npuops.hostsched.features import State
from npuops.hostsched.guard import Checked, Guard
from npuops.hostsched.guard_options import GuardOptions
from npuops.hostsched.plan import Plan
from npuops.schedlab.agent_policy import is_missing, opened
from npuops.schedlab.episode import play_under
from npuops.schedlab.recording import Recording
from npuops.schedlab.rivals import ByAgent, Rival, Scripted, assigned
from npuops.schedlab.simulated_play import play_simulated
from npuops.schedlab.theatre import CannotPlayError, Take, changes, script_actions

PINNED: Final = "the mix is pinned to one CPU of several, and the kernel gives no reservation to a pinned task"


class Witness(Guard):
    """The guard, with a note of each plan that it let pass."""

    def __init__(self, options: GuardOptions, ranges: Ranges | None) -> None:
        """As the guard's."""
        super().__init__(options, ranges)
        self.seen: list[tuple[int, dict[str, str]]] = []

    def check(self, state: State, plan: Plan) -> Checked:
        """As the guard's."""
        checked = super().check(state, plan)
        names = {task.id: task.command for task in state.frame.tasks}
        self.seen.append((state.frame.at_us, {names[task]: one.name for task, one in checked.plan.levels.items()}))
        return checked


class SimulatedTheatre:
    """By the rules of one kernel."""

    def __init__(self, rules: Rules | None = None, *, control_share: float = 0.0) -> None:
        """`control_share` as of the guard."""
        self._rules = rules or Rules()
        self._options = GuardOptions(control_share=control_share)

    def play(self, mix: Mix, rival: Rival, seed: int, *, hints: bool, filmed: bool) -> Take:
        """As `Theatre.play`."""
        del filmed  # it costs nothing here
        if isinstance(rival, Scripted):
            return Take(self._script(mix, rival, seed), script_actions(mix, rival))
        return self._agent(mix, rival, seed, hints=hints)

    def _script(self, mix: Mix, rival: Scripted, seed: int) -> Recording:
        if rival.reserves and mix.cpus == 1:
            raise CannotPlayError(PINNED)
        return play_scripted(mix, rival, seed, self._rules)

    def _agent(self, mix: Mix, rival: ByAgent, seed: int, *, hints: bool) -> Take:
        if missing := is_missing(rival):
            raise CannotPlayError(missing)
        with opened(rival) as (policy, ranges):
            witness = Witness(self._options, ranges)
            recording = play_under(
                policy,
                mix,
                seed,
                self._rules,
                telling=[player.name for player in mix.players] if hints else (),
                pinned=mix.cpus == 1,
                guard=witness,
                period_us=rival.period_us,
            )
        return Take(recording, tuple(changes(witness.seen)))


def play_scripted(mix: Mix, rival: Scripted, seed: int, rules: Rules) -> Recording:
    """A script, at the start of each phase; what it gives back comes first.

    Raises:
        OptionError: reservations that do not fit.
    """
    before = list(assigned(mix, rival.levels(mix, 0)).settings)

    def on_phase(simulation: Simulation, phase: int) -> None:
        found = assigned(mix, rival.levels(mix, phase))
        for number, setting in sorted(enumerate(found.settings), key=lambda each: each[1].share):
            if phase == 0 or setting != before[number]:
                simulation.set(number, setting)
                before[number] = setting
        for session, nice in found.groups.items():
            simulation.set_group(session, nice)

    return play_simulated(mix, seed, rules, on_phase)
