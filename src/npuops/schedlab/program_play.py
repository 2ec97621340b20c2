"""Plays a load of real programs under a rival: everything is started, set, measured for a window, and ended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from npuops.clock import SystemClock
from npuops.errors import OptionError
from npuops.hostsched.energy_meter import Energy, EnergyMeter
from npuops.private_folder import private_folder
from npuops.schedlab.agent_process import AgentProcess
from npuops.schedlab.cpu_account import clean_share, read_idle_us, read_switches
from npuops.schedlab.outcome import tally
from npuops.schedlab.played import AgentCost
from npuops.schedlab.process_family import family_cpu_us
from npuops.schedlab.program_load import Cast, ProgramLoad, Scene
from npuops.schedlab.program_outcome import ProgramOutcome
from npuops.schedlab.program_roles import Roles

_LEAD_NS: Final = 100_000_000
"""From go to the first instant of the window: everybody must have heard it."""
_LOOK_NS: Final = 1_000_000_000
"""Between looks at the energy meter."""
LEAST_S: Final = 0.2

Rival = Callable[[Roles], AbstractContextManager[AgentProcess | None]]
"""Sets the programs, once they are all at work, and puts them back after the window; or runs an agent meanwhile."""


@dataclass(frozen=True, slots=True)
class ProgramTake:
    """One play.

    Attributes:
        outcome: its figures.
        agent: what it took; None where no agent ran.
        energy: of the whole machine over the window.
    """

    outcome: ProgramOutcome
    agent: AgentCost | None
    energy: Energy


@dataclass(frozen=True, slots=True)
class _Account:
    """Who used the CPUs.

    Attributes:
        cpus: these.
        idle_us: of them, since boot.
        ours_us: of this process and its descendants.
        switches: between tasks, on all CPUs, since boot.
        at_ns: CLOCK_MONOTONIC.
    """

    cpus: tuple[int, ...]
    idle_us: int
    ours_us: int
    switches: int
    at_ns: int

    @classmethod
    def now(cls) -> _Account:
        cpus = tuple(sorted(os.sched_getaffinity(0)))
        return cls(cpus, read_idle_us(cpus), family_cpu_us(os.getpid()), read_switches(), time.monotonic_ns())

    def share_since(self, before: _Account) -> float:
        window_us = (self.at_ns - before.at_ns) // 1000
        return clean_share(self.idle_us - before.idle_us, self.ours_us - before.ours_us, window_us, len(self.cpus))


def play_program(
    load: ProgramLoad, seconds: float, rival: Rival, *, setting: str = "default", seed: int = 0
) -> ProgramTake:
    """Play a load; whatever happens, none of its programs is left.

    Args:
        load: what to play.
        seconds: length of the window.
        rival: entered when all programs are at work, left after the window.
        setting: its name.
        seed: of the arrivals.

    Raises:
        OptionError: the window is too short.
        MissingToolchainError: a command is not there.
        ToolchainCrashError: a program ended before its time.
        ToolchainTimeoutError: one does not begin, or does not end.
        StorageError: disk or memory is short.
        Whatever the rival raises.
    """
    if not seconds >= LEAST_S:
        raise OptionError(f"a window of {seconds} s is too short", advice=f"play for {LEAST_S} s at least")
    with opened(load, seconds, seed) as (scene, cast), rival(cast.roles) as agent:
        outcome, energy = _measure(load, scene, cast, setting, agent)
        return ProgramTake(outcome, None if agent is None else agent.cost(), energy)


@contextmanager
def opened(load: ProgramLoad, seconds: float, seed: int = 0) -> Iterator[tuple[Scene, Cast]]:
    """All programs of a load, at work; on leaving, whatever happened, none is left.

    Raises:
        As `play_program`.
    """
    load.demand()
    with private_folder() as folder, ExitStack() as stack:
        scene = Scene(stack, folder, seed, seconds, len(os.sched_getaffinity(0)))
        cast = load.set_up(scene)
        cast.meter.await_first()
        yield scene, cast


def _measure(
    load: ProgramLoad, scene: Scene, cast: Cast, setting: str, agent: AgentProcess | None
) -> tuple[ProgramOutcome, Energy]:
    start_ns = time.monotonic_ns() + _LEAD_NS
    cast.asked.go(start_ns)
    _sleep_until(start_ns)
    before = _Account.now()
    cast.meter.begin()
    if agent is not None:
        agent.begin()
    meter = EnergyMeter(SystemClock())
    while time.monotonic_ns() < start_ns + scene.window_ns:
        _sleep_until(min(time.monotonic_ns() + _LOOK_NS, start_ns + scene.window_ns))
        meter.look()
    batch_per_s, after, energy = cast.meter.per_s(), _Account.now(), meter.energy()
    if agent is not None:
        agent.end()
        agent.check()
    answers = cast.asked.finish()
    for one in scene.people:
        one.demand_alive()
    document = {
        "load": load.name,
        "setting": setting,
        "seed": scene.seed,
        "seconds": scene.seconds,
        "slo_us": load.slo_us,
        "batch_per_s": batch_per_s,
        "batch_unit": cast.meter.unit,
        "clean_share": after.share_since(before),
        "switches_per_s": (after.switches - before.switches) * 1e9 / (after.at_ns - before.at_ns),
        "client_ahead": cast.ahead,
        **tally(answers.response_us, answers.answered, load.slo_us),
    }
    return msgspec.convert(document, ProgramOutcome), energy


def _sleep_until(moment_ns: int) -> None:
    time.sleep(max(moment_ns - time.monotonic_ns(), 0) / 1e9)
