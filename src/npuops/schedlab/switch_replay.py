"""A recorded play once more in the simulator: the same work wanted at the same moments, but its rules say who runs."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from npuops.eevdf.mix import REST, Mix, Player
from npuops.eevdf.rules import Rules
from npuops.eevdf.setting import DEFAULT, SchedPolicy, Setting
from npuops.eevdf.simulation import Simulation
from npuops.schedlab.switch_demand import demand_of, ticks_of
from npuops.schedlab.switch_trace import COLUMNS, NOBODY, OTHERS, Event, SwitchTrace

_TAKEN = Setting(SchedPolicy.FIFO, rt_priority=99)


def rules_of(trace: SwitchTrace, rules: Rules | None = None) -> Rules:
    """These rules as they are for a replay: the recording machine's ticks and slice.

    What a switch costs is in the recorded work already, and counts once only.
    """
    rules = rules or Rules()
    ticks = ticks_of(trace)
    return replace(
        rules,
        hz=rules.hz if ticks is None else ticks.hz,
        base_slice_ns=rules.base_slice_ns or trace.play.base_slice_ns or None,
        switch_cost_ns=0,
        cache_refill_ns=0,
        tick_jitter_ns=0,
    )


def stand_in(trace: SwitchTrace) -> Mix:
    """A mix of tasks of these names and sessions, and of one for each CPU that is none of the play's."""
    play = trace.play
    taken = [Player(f"(others {cpu})", (REST,), play.actors[0].session) for cpu in range(play.cpus)]
    players = [Player(actor.name, (REST,), actor.session) for actor in play.actors]
    return Mix(play.mix, (play.duration_ns // 1000 + 1,), (*players, *taken), play.cpus)


def replay(trace: SwitchTrace, rules: Rules | None = None) -> SwitchTrace:
    """Let the simulator do what the kernel did.

    Args:
        trace: of a kernel.
        rules: to be tried; by default those of the kernel that is modelled.

    Raises:
        OptionError: a setting that is not modelled.
    """
    play, mix = trace.play, stand_in(trace)
    players = len(play.actors)
    simulation = Simulation(mix, 0, rules_of(trace, rules), demand_of(trace))
    for number, actor in enumerate(play.actors):
        if actor.setting != DEFAULT:
            simulation.set(number, actor.setting)
        if actor.group_nice:
            simulation.set_group(actor.session, actor.group_nice)
    for number in range(players, len(mix.players)):
        simulation.set(number, _TAKEN)
    events = _watch(simulation, players, play.duration_ns)
    return SwitchTrace(
        msgspec.structs.replace(play, kernel="simulator"), np.array(events, np.int64).reshape(-1, COLUMNS)
    )


def _watch(simulation: Simulation, players: int, duration_ns: int) -> list[tuple[int, ...]]:
    """Who runs and who wants to can change at events only: look after each."""
    names = [*range(players), *[OTHERS] * (len(simulation.mix.players) - players), NOBODY]
    running, awake = simulation.running(), simulation.awake()
    found: list[tuple[int, ...]] = []
    while (moment := simulation.next_ns()) < duration_ns:
        simulation.run_until(moment)
        now, wanting = simulation.running(), simulation.awake()
        for player in np.flatnonzero(wanting[:players] & ~awake[:players]).tolist():
            found += [(moment, int(Event.WAKE), simulation.place(player), player, NOBODY, 0, 0)]
        for cpu in np.flatnonzero(now != running).tolist():
            was, then = int(running[cpu]), int(now[cpu])
            stays = int(was >= 0 and wanting[was])
            if names[was] != names[then]:
                found.append((moment, int(Event.SWITCH), cpu, names[was], names[then], stays, 0))
        running, awake = now, wanting
    return found
