"""Rivals on this machine's kernel: scripts set their settings themselves, policies act through the real agent."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from npuops.clock import SystemClock
from npuops.eevdf.mix import Mix
from npuops.eevdf.setting import DEFAULT
from npuops.hostsched.energy_meter import Energy, EnergyMeter
from npuops.hostsched.group_knobs import autogroup_of, write_native
from npuops.hostsched.hint_place import VARIABLE
from npuops.hostsched.knobs import AdmissionError, NotPermittedError, write_setting
from npuops.hostsched.plan import NORMAL
from npuops.hostsched.trace_file import TraceReader
from npuops.schedlab.agent_policy import is_missing
from npuops.schedlab.agent_process import AgentProcess, places, running_agent
from npuops.schedlab.hint_teller import EVERY_US, HintTeller
from npuops.schedlab.load_program import load_program
from npuops.schedlab.played import Action
from npuops.schedlab.rivals import Assignment, ByAgent, Rival, Scripted, assigned
from npuops.schedlab.schedule_file import Calibration
from npuops.schedlab.stage import Stage, open_stage
from npuops.schedlab.theatre import CannotPlayError, Take, changes, script_actions

_LONG_US: Final = 200_000
_FIRST: Final = -20


class KernelTheatre:
    """All plays share program and calibration."""

    def __init__(self, calibration: Calibration, *, arguments: Sequence[str] = (), program: Path | None = None) -> None:
        """Made ready.

        Args:
            calibration: of the loads.
            arguments: more of them for the agent's command line.
            program: of the loads; by default that in npuops' cache.
        """
        self._calibration = calibration
        self._arguments = tuple(arguments)
        self._program = load_program() if program is None else program

    def play(self, mix: Mix, rival: Rival, seed: int, *, hints: bool, filmed: bool) -> Take:
        """As `Theatre.play`."""
        if isinstance(rival, ByAgent) and (missing := is_missing(rival)):
            raise CannotPlayError(missing)
        with open_stage(mix, seed, calibration=self._calibration, program=self._program) as stage:
            if isinstance(rival, Scripted):
                return self._script(stage, rival)
            return self._agent(stage, rival, hints=hints, filmed=filmed)

    def _script(self, stage: Stage, rival: Scripted) -> Take:
        mix = stage.mix
        if rival.reserves and mix.cpus < (os.cpu_count() or 1):
            raise CannotPlayError(
                "the mix is pinned to some CPUs, and the kernel gives no reservation to a pinned task"
            )
        script = Script(stage, rival)
        try:
            script.set(0)
        except (AdmissionError, NotPermittedError) as error:
            raise CannotPlayError(error.message, advice=error.advice) from error
        energy = attend(stage, [(start, script.set) for start in mix.starts_us()[1:-1]])
        return Take(stage.finish(), script_actions(mix, rival), energy=energy)

    def _agent(self, stage: Stage, rival: ByAgent, *, hints: bool, filmed: bool) -> Take:
        with tempfile.TemporaryDirectory(prefix="hs-bench-") as name:
            trace = Path(name) / "agent.trace" if filmed else None
            take = perform(stage, rival, Path(name), hints=hints, record=trace, arguments=self._arguments)
            return take if trace is None else replace(take, actions=tuple(_actions(trace, stage)))


def perform(
    stage: Stage, rival: ByAgent, folder: Path, *, hints: bool, record: Path | None, arguments: Sequence[str] = ()
) -> Take:
    """Play a stage's mix under the agent; what it did is only in its trace.

    Args:
        stage: ready to begin.
        rival: which policy.
        folder: for the agent's files and its socket; of this play only, and short: a socket's path is.
        hints: the apps tell what they do.
        record: file of the agent's trace; None: it keeps none.
        arguments: more of them for the agent's command line.

    Raises:
        NpuopsError: the play broke off.
    """
    with ExitStack() as stack:
        pids = list(stage.pids.values())
        agent = stack.enter_context(running_agent(rival, pids, folder, arguments=arguments, record=record))
        teller = None
        if hints:
            teller = HintTeller(stage, places(folder)[VARIABLE])
            stack.callback(teller.close)
        energy = attend(stage, [], teller=teller, agent=agent)
        return Take(stage.finish(), (), agent.cost(), energy)


class Script:
    """Sets the tasks of a stage, phase by phase."""

    def __init__(self, stage: Stage, rival: Scripted) -> None:
        """Nothing is set yet."""
        self._stage = stage
        self._rival = rival
        self._now = Assignment((DEFAULT,) * len(stage.mix.players))

    def set(self, phase: int) -> None:
        """What the script wants in this phase, where it differs; what is given back comes first."""
        stage = self._stage
        wanted = assigned(stage.mix, self._rival.levels(stage.mix, phase))
        pids = list(stage.pids.values())
        todo = [
            (pid, after)
            for pid, before, after in zip(pids, self._now.settings, wanted.settings, strict=True)
            if before != after
        ]
        for pid, after in sorted(todo, key=lambda each: each[1].share):
            write_setting(pid, after)
        for session, nice in wanted.groups.items():
            if nice != self._now.groups.get(session, 0):
                _set_session(stage, session, nice)
        self._now = wanted


def _set_session(stage: Stage, session: int, nice: int) -> None:
    pid = next(stage.pids[player.name] for player in stage.mix.players if player.session == session)
    found = autogroup_of(pid)
    if found is None:
        raise CannotPlayError("this kernel makes no autogroups, and nice counts for nothing between sessions")
    write_native(found[0], nice, pid)


def attend(
    stage: Stage,
    moments: Sequence[tuple[int, Callable[[int], None]]],
    *,
    teller: HintTeller | None = None,
    agent: AgentProcess | None = None,
) -> Energy:
    """Let the mix begin, do what is to be done at these moments and every ten milliseconds, until it ends.

    Args:
        stage: ready to begin.
        moments: us since the mix began, and what to do then, given the number of the moment from 1.
        teller: tells what the apps do.
        agent: its CPU time is taken, and it must not end before the mix.

    Returns:
        Of the whole machine, from the mix's beginning to its end.
    """
    with _punctual():
        start_us = stage.go() // 1000
        if agent is not None:
            agent.begin()
        number, next_word_us = 0, 0
        meter = EnergyMeter(SystemClock())
        while True:
            since_us = time.monotonic_ns() // 1000 - start_us
            if number < len(moments) and since_us >= moments[number][0]:
                number += 1
                moments[number - 1][1](number)
                continue
            if teller is not None and since_us >= next_word_us:
                teller.tell()
                next_word_us = since_us - since_us % EVERY_US + EVERY_US
                continue
            if agent is not None:
                agent.check()
            meter.look()
            wait_us = _LONG_US if number == len(moments) else moments[number][0] - since_us
            if teller is not None:
                wait_us = min(wait_us, next_word_us - since_us)
            if stage.ended(min(max(wait_us, 0), _LONG_US) / 1e6):
                break
        if agent is not None:
            agent.end()
        return meter.energy()


@contextmanager
def _punctual() -> Iterator[None]:
    """Whoever sets the stage must not be late; without privilege it is as punctual as it may be."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _FIRST)
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def _actions(trace: Path, stage: Stage) -> Iterator[Action]:
    names = {pid: name for name, pid in stage.pids.items()}
    start_us = (stage.start_ns or 0) // 1000
    seen: list[tuple[int, dict[str, str]]] = []
    with TraceReader(trace) as reader:
        for entry in reader:
            plan = entry.checked.plan if entry.checked is not None else None
            levels = {} if plan is None else plan.levels
            now = {names[task.tid]: one.name for task, one in levels.items() if task.tid in names and one != NORMAL}
            seen.append((max(entry.frame.at_us - start_us, 0), now))
    return changes(seen)
