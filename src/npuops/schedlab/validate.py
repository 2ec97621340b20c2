"""Holds the simulator against the kernel: the same loads at the same instants, under the same settings, by turns."""

from __future__ import annotations

import platform
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from npuops.eevdf.mix import Doing, Mix
from npuops.eevdf.rules import Rules
from npuops.eevdf.simulation import Simulation
from npuops.errors import OptionError
from npuops.events import Observer, StepFinished, StepProgressed, StepStarted, Warned, ignore
from npuops.hostsched.group_knobs import AUTOGROUP, autogroup_of, write_native
from npuops.hostsched.knobs import KnobError, NoSuchKnobError, base_slice_ns, write_setting
from npuops.schedlab.outcome import Outcome, judge
from npuops.schedlab.recording import Recording
from npuops.schedlab.schedule_file import Calibration
from npuops.schedlab.simulated_play import play_simulated
from npuops.schedlab.stage import play
from npuops.schedlab.validation_cells import DEFAULT, Cell
from npuops.schedlab.validation_report import ClosedForm, Plays, Validation, figures, rows_of

STEADY: Final = 0.94
"""A play is disturbed, too, if its CPUs were slower than this beside what was calibrated: somebody beneath takes a
share that no account shows (another thread of the same core, a hypervisor)."""
SHIELD_NICE: Final = -20
FITTED: Final[Mapping[str, tuple[int, ...]]] = {
    "switch_cost_ns": (500, 1_000, 1_500, 2_000, 3_000, 4_500, 6_000),
    "cache_refill_ns": (0, 10_000, 20_000, 40_000, 80_000),
    "tick_jitter_ns": (0, 2_000, 20_000, 100_000),
}
"""The figures of `Rules` that are of a machine and not of the kernel's source, and what is tried of each."""


def local_rules() -> Rules:
    """The rules with this machine's base slice, as its kernel tells it."""
    try:
        return Rules(base_slice_ns=base_slice_ns() or None)
    except (KnobError, OptionError):  # a kernel that tells no slices: the simulator's own figure stands
        return Rules()


@dataclass(slots=True)
class Bench:
    """What is played how; fills itself while it plays, so that an interrupted one keeps what it has.

    Attributes:
        cells: what is compared.
        repeats: plays of each on the kernel, each with other arrivals.
        simulated: plays in the simulator for each on the kernel: the first with the same arrivals.
        seed: of arrivals and of the order.
        calibration: of the machine, shared by all plays.
        tries: a play that others disturb is repeated so often at most; then the least disturbed one counts.
        shield: keep others from the CPUs by the weight of the players' session.
        rules: of the simulator.
        observer: gets the progress.
        keep: gets every outcome at once, with its cell.
        kernel: outcomes so far, by cell, each with the speed that the CPUs had in that play.
        repeated: plays thrown away so far.
        skipped: what could not be played, by cell.
    """

    cells: Sequence[Cell]
    repeats: int
    simulated: int
    seed: int
    calibration: Calibration
    tries: int = 3
    shield: bool = False
    rules: Rules = field(default_factory=local_rules)
    observer: Observer = ignore
    keep: Callable[[Outcome], object] = id
    kernel: dict[Cell, list[tuple[Outcome, float]]] = field(default_factory=lambda: defaultdict(list))
    repeated: int = 0
    skipped: dict[Cell, str] = field(default_factory=dict)

    def play(self) -> None:
        """All cells on the kernel, repeat by repeat, in another order each time.

        Raises:
            As `stage.play`; a setting that the kernel does not take here skips its cell, and is told.
        """
        started, total, done = time.monotonic(), self.repeats * len(self.cells), 0
        self.observer(StepStarted(step="validate", detail=f"{len(self.cells)} cells, {self.repeats} times"))
        for repeat in range(self.repeats):
            order = [*self.cells]
            random.Random(f"{self.seed} {repeat}").shuffle(order)  # noqa: S311 - an order, no secret
            for cell in order:
                self._play_cell(cell, self.seed + repeat)
                done += 1
                detail = f"{cell.mix.name}, {cell.treatment.name}"
                self.observer(StepProgressed(step="validate", done=done, total=total, detail=detail))
        self.observer(StepFinished(step="validate", seconds=time.monotonic() - started))

    def _play_cell(self, cell: Cell, seed: int) -> None:
        if cell in self.skipped:
            return
        tries: list[tuple[float, Outcome, float]] = []
        for _ in range(self.tries):
            try:
                recording = play_kernel(cell, seed, self.calibration, shield=self.shield)
            except KnobError as refused:
                self.skipped[cell] = f"{cell.mix.name} with {cell.treatment.name}: {refused.message}"
                self.observer(Warned(step="validate", message=self.skipped[cell], advice=refused.advice))
                return
            outcome = judge(recording, cell.treatment.name)
            speed = pace(recording) / pace(simulate(cell, seed, self.rules))
            tries.append((min(outcome.clean_share or 0.0, speed / STEADY), outcome, speed))
            if outcome.is_clean and speed >= STEADY:
                break
        self.repeated += len(tries) - 1
        _, best, speed = max(tries, key=lambda each: each[0])
        self.kernel[cell].append((best, speed))
        self.keep(best)

    def report(self, *, fitted: bool, complete: bool, closed_forms: Sequence[ClosedForm] = ()) -> Validation:
        """All that was played so far, beside the simulator under `rules`."""
        plays = [self._plays(cell) for cell in self.cells if self.kernel[cell]]
        rows = rows_of(plays, DEFAULT)
        return Validation(
            kernel=platform.release(),
            rules={name: int(getattr(self.rules, name)) for name in FITTED},
            fitted=fitted,
            rows=rows,
            held_out=figures([row for row in rows if row.held_out]),
            all=figures(rows),
            closed_forms=tuple(closed_forms),
            repeated=self.repeated,
            skipped=tuple(self.skipped.values()),
            complete=complete,
        )

    def _plays(self, cell: Cell) -> Plays:
        name = cell.treatment.name
        return Plays(
            mix=cell.mix.name,
            setting=name,
            held_out=cell.held_out,
            speed=sum(speed for _, speed in self.kernel[cell]) / len(self.kernel[cell]),
            kernel=tuple(one for one, _ in self.kernel[cell]),
            simulator=tuple(
                judge(simulate(cell, one.seed + 1000 * extra, self.rules, speed), name)
                for one, speed in self.kernel[cell]
                for extra in range(self.simulated)
            ),
        )

    def fit(self) -> None:
        """Choose `rules` so that the cells that are not held out agree best; one figure after the other.

        Only the figures in `FITTED` are touched, no rule of the kernel; cells that are held out are not looked at.
        """
        seen = [cell for cell in self.cells if self.kernel[cell] and not cell.held_out]
        for name, values in FITTED.items():
            self.observer(StepStarted(step="fit", detail=name))
            started = time.monotonic()
            tried = [(self._error(seen, _changed(self.rules, name, value)), value) for value in values]
            self.rules = _changed(self.rules, name, min(tried)[1])
            self.observer(StepFinished(step="fit", seconds=time.monotonic() - started, detail=f"{min(tried)[1]} ns"))

    def _error(self, seen: Sequence[Cell], rules: Rules) -> float:
        errors = []
        for cell in seen:
            for one, speed in self.kernel[cell]:
                shares = [
                    judge(simulate(cell, one.seed + 1000 * extra, rules, speed)).slo_share
                    for extra in range(self.simulated)
                ]
                found = [share for share in shares if share is not None]
                if one.slo_share is not None and found:
                    errors.append(sum(found) / len(found) - one.slo_share)
        return sum(abs(error) for error in errors)


def _changed(rules: Rules, name: str, value: int) -> Rules:
    change: dict[str, Any] = {name: value}
    return replace(rules, **change)


def play_kernel(cell: Cell, seed: int, calibration: Calibration, *, shield: bool = False) -> Recording:
    """Play a cell on this machine.

    Raises:
        KnobError: the kernel does not take a setting.
        As `stage.play`.
    """
    return play(cell.mix, seed, on_start=lambda pids: set_players(cell, pids, shield=shield), calibration=calibration)


def set_players(cell: Cell, pids: Mapping[str, int], *, shield: bool = False) -> dict[str, int]:
    """Tell the kernel what the cell's setting tells of its players.

    Returns:
        The nice value that each one's session has then, by the player's name.

    Raises:
        KnobError: the kernel does not take it.
    """
    niceness = {}
    for player in cell.mix.players:
        pid, setting = pids[player.name], cell.treatment.setting(player)
        if setting is not None:
            write_setting(pid, setting)
        nice = cell.treatment.group_nice(player)
        if nice is None and shield and not cell.treatment.groups:
            nice = SHIELD_NICE
        if nice is not None:
            _set_session(pid, nice)
        niceness[player.name] = nice or 0
    return niceness


def _set_session(pid: int, nice: int) -> None:
    found = autogroup_of(pid)
    if found is None:
        raise NoSuchKnobError("this kernel makes no autogroups, so sessions have no nice value")
    if found[0].kind == AUTOGROUP and found[1] != nice:
        write_native(found[0], nice, pid)


def simulate(cell: Cell, seed: int, rules: Rules, speed: float = 1.0) -> Recording:
    """Play a cell in the simulator.

    Args:
        cell: what.
        seed: of its arrivals.
        rules: of the kernel.
        speed: of the CPUs, 1 as calibrated: on a slower one the same request takes longer. Near saturation a few
            percent of it decide about most requests, and no kernel can help that.
    """
    played = Cell(_at_speed(cell.mix, speed), cell.treatment)
    found = play_simulated(played.mix, seed, rules, lambda simulation, phase: _set_simulated(simulation, played, phase))
    records = tuple(
        replace(record, progress=np.where(turns, 1.0, speed) * record.progress)
        for record, turns in zip(
            found.records, ([act.doing is Doing.PIPE for act in each.acts] for each in cell.mix.players), strict=True
        )
    )
    return replace(found, mix=cell.mix, records=records)


def _at_speed(mix: Mix, speed: float) -> Mix:
    players = tuple(
        replace(
            player,
            acts=tuple(
                replace(act, work_us=max(1, round(act.work_us / speed))) if act.work_us else act for act in player.acts
            ),
        )
        for player in mix.players
    )
    return replace(mix, players=players)


def _set_simulated(simulation: Simulation, cell: Cell, phase: int) -> None:
    if phase:
        return
    treatment = cell.treatment
    for number, player in enumerate(cell.mix.players):
        setting, nice = treatment.setting(player), treatment.group_nice(player)
        if setting is not None:
            simulation.set(number, setting)
        if nice is not None:
            simulation.set_group(player.session, nice)


def pace(recording: Recording) -> float:
    """Work done in a second of CPU time, beside what was calibrated; 1 without work that shows it."""
    steady = {Doing.SERVE, Doing.COMPUTE, Doing.CYCLE}
    work_us, cpu_us = 0.0, 0.0
    for player, record in zip(recording.mix.players, recording.records, strict=True):
        for phase, act in enumerate(player.acts):
            if act.doing in steady:
                work_us += float(record.progress[phase])
                cpu_us += float(record.cpu_ns[phase]) / 1000
    return work_us / cpu_us if cpu_us else 1.0
