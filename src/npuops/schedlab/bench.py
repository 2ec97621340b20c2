"""The experiment from one command: opens or goes on with a log, plays what is missing, and writes report and plots."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from npuops import __version__
from npuops.eevdf.mix import Mix
from npuops.eevdf.rules import Rules
from npuops.errors import MissingToolchainError, OptionError, nearest
from npuops.events import Observer, StepFinished, StepProgressed, Warned, ignore
from npuops.report.output_file import write_output
from npuops.schedlab.experiment import Bill, entrants, perform, quick
from npuops.schedlab.experiment_report import Report, markdown, report
from npuops.schedlab.kernel_theatre import KernelTheatre
from npuops.schedlab.lessons import lesson
from npuops.schedlab.line_up import line_up, search_statics
from npuops.schedlab.load_program import calibrate
from npuops.schedlab.mixes import CONTROLS, HELD_OUT, by_name
from npuops.schedlab.play_log import NAME, PlayLog, new_log, open_log
from npuops.schedlab.played import SCHEMA, Head
from npuops.schedlab.plots import draw
from npuops.schedlab.recording import Origin
from npuops.schedlab.rival_names import AGAIN, NAMES
from npuops.schedlab.rivals import StaticRule
from npuops.schedlab.simulated_theatre import SimulatedTheatre
from npuops.schedlab.static_search import Place, grid
from npuops.schedlab.theatre import Theatre

QUICK_MIXES: Final = ("four-phase", "stationary")
HEARING: Final = {"none": (False,), "all": (True,), "both": (False, True)}
CONTROL_SHARE: Final = 0.0
"""Rivals are compared from outside here, so that an agent need not spend time in the default to compare itself."""
_SCENES, _QUICK_SCENES = 16, 2
_SEARCH_SEEDS: Final = (900_001, 900_002)
"""Of arrivals in which settings of single mixes are searched; no repeat has them."""
_QUICK_RULES: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """As the command line says.

    Attributes:
        mixes: names, or `held-out`, `controls`, `all`.
        rivals: names, or `all`.
        repeats: of each.
        on: kernel or simulator.
        hints: what the apps tell the agent: `none`, `all`, or `both` one after the other.
        seed: of arrivals and order.
        tries: of a play that others disturbed.
        out: folder of log, report and plots.
        resume: go on with the log that is there.
        quick: two mixes, phases of a second, a search in name only: to see that it works.
        thresholds: of the tuned reactive rule; None: those that ship.
        folder: of the learned policy; None: the one that ships.
    """

    mixes: tuple[str, ...]
    rivals: tuple[str, ...]
    repeats: int
    on: Origin
    hints: str
    seed: int
    tries: int
    out: Path
    resume: bool
    quick: bool
    thresholds: Path | None = None
    folder: Path | None = None


def run_bench(options: BenchOptions, observe: Observer = ignore) -> Report:
    """Play, and tell what came of it; plays that the log has already are not played again.

    Raises:
        OptionError: a name that nobody has, or a log that was begun otherwise.
        StorageError: the folder cannot be written.
        As `load_program`, on the kernel.
    """
    if options.hints not in HEARING:
        raise OptionError(f"--hints is {options.hints!r}", advice=nearest(options.hints, HEARING))
    mixes = chosen_mixes(options.mixes, is_quick=options.quick)
    line_up(options.rivals, {}, {})  # a name that nobody has is told before the search
    with ExitStack() as stack:
        log = stack.enter_context(_log(options, mixes, observe))
        head = log.head
        rivals = line_up(
            _rivals(options), head.statics, head.statics_here, thresholds=options.thresholds, folder=options.folder
        )
        bill = Bill(
            mixes=mixes,
            entrants=entrants(rivals, HEARING[options.hints]),
            repeats=options.repeats,
            seed=options.seed,
            tries=options.tries if options.on is Origin.KERNEL else 1,
        )
        perform(bill, _theatre(head), log, observe)
        notes = {rival.name: rival.note for rival in rivals}
        return write_report(options.out, log, notes, mixes, observe)


def _rivals(options: BenchOptions) -> tuple[str, ...]:
    """A second default says something only where something is random."""
    if options.on is Origin.KERNEL or "all" not in options.rivals:
        return options.rivals
    return tuple(name for name in NAMES if name != AGAIN)


def write_report(
    out: Path, log: PlayLog, notes: dict[str, str], mixes: Mapping[str, Mix], observe: Observer = ignore
) -> Report:
    """Report and plots of all plays in a log.

    Raises:
        StorageError: they cannot be written.
    """
    plays = list(log.plays.values())
    found = report(log.head, plays, notes)
    write_output(out / "report.json", msgspec.json.encode(found) + b"\n")
    write_output(out / "report.md", markdown(found, plays).encode())
    try:
        began = time.monotonic()
        files = draw(out, plays, found.standings, mixes)
        observe(StepFinished(step="plots", seconds=time.monotonic() - began, detail=f"{len(files)} files"))
    except MissingToolchainError as error:
        observe(Warned(step="plots", message=error.message, advice=error.advice))
    return found


def chosen_mixes(names: Sequence[str], *, is_quick: bool) -> dict[str, Mix]:
    """By name, in the order in which they are named.

    Raises:
        OptionError: no mix of that name.
    """
    groups = {"held-out": tuple(HELD_OUT), "controls": tuple(CONTROLS), "all": (*HELD_OUT, *CONTROLS)}
    if is_quick and tuple(names) in {("all",), ("held-out",), ("controls",)}:
        names = QUICK_MIXES
    found = {}
    for name in (each for group in names for each in groups.get(group, (group,))):
        mix = by_name(name)
        found[name] = quick(mix) if is_quick else mix
    return found


def _theatre(head: Head) -> Theatre:
    if head.calibration is None:
        return SimulatedTheatre(control_share=head.control_share)
    return KernelTheatre(head.calibration, arguments=("--control-share", f"{head.control_share * 100:g}"))


def _log(options: BenchOptions, mixes: Mapping[str, Mix], observe: Observer) -> PlayLog:
    path = options.out / NAME
    if not options.resume:
        if path.exists():
            raise OptionError(f"{path} has plays already", advice="go on with --resume, or name another --out")
        return new_log(path, _head(options, mixes, observe))
    log = open_log(path)
    head = log.head
    for name, ours, theirs in (
        ("--on", options.on.value, head.on.value),
        ("--seed", options.seed, head.seed),
        ("--quick", options.quick, head.quick),
        ("the kernel", os.uname().release, head.kernel),
        ("npuops", __version__, head.version),
    ):
        if ours != theirs:
            log.__exit__(None, None, None)
            raise OptionError(
                f"{path} was begun with {name} {theirs}, now it is {ours}", advice="begin another one with --out"
            )
    return log


def _head(options: BenchOptions, mixes: Mapping[str, Mix], observe: Observer) -> Head:
    scenes = [lesson(number) for number in range(_QUICK_SCENES if options.quick else _SCENES)]
    places = {
        name: [Place(mix, seed, Rules()) for seed in _SEARCH_SEEDS[: 1 if options.quick else 2]]
        for name, mix in mixes.items()
    }
    rules = _few_rules() if options.quick else ()

    def told(done: int, whole: int) -> None:
        observe(StepProgressed(step="search", done=done, total=whole, detail="static settings"))

    began = time.monotonic()
    statics, here = search_statics(options.rivals, scenes, places, rules, told)
    if statics or here:
        observe(StepFinished(step="search", seconds=time.monotonic() - began, detail="static settings"))
    return Head(
        schema=SCHEMA,
        on=options.on,
        seed=options.seed,
        quick=options.quick,
        kernel=os.uname().release,
        cpus=os.cpu_count() or 1,
        version=__version__,
        began_unix_us=time.time_ns() // 1000,
        calibration=calibrate() if options.on is Origin.KERNEL else None,
        statics=statics,
        statics_here=here,
        control_share=CONTROL_SHARE,
    )


def _few_rules() -> list[StaticRule]:
    rules = list(grid())
    return rules[:: max(1, len(rules) // _QUICK_RULES)]
