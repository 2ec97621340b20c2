"""The experiment from one command: opens or goes on with a log, plays what is missing, and writes report and plots."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from npuops import __version__
from npuops.eevdf.mix import Mix
from npuops.eevdf.rules import Rules
from npuops.errors import MissingToolchainError, OptionError
from npuops.events import Observer, StepFinished, StepProgressed, Warned, ignore
from npuops.report.output_file import write_output
from npuops.schedlab.bench_plan import HEARING, BenchOptions, BenchPlan, planned
from npuops.schedlab.energy_figures import energies
from npuops.schedlab.experiment import Bill, Turn, entrants, in_order, perform, still_to_play
from npuops.schedlab.experiment_report import Report, markdown, report
from npuops.schedlab.kernel_theatre import KernelTheatre
from npuops.schedlab.lessons import lesson
from npuops.schedlab.line_up import SEARCHED, SEARCHED_HERE, line_up, search_statics
from npuops.schedlab.load_program import calibrate
from npuops.schedlab.play_log import NAME, PlayLog, new_log, open_log
from npuops.schedlab.played import SCHEMA, Head
from npuops.schedlab.plots import draw
from npuops.schedlab.program_bill import ProgramBill
from npuops.schedlab.program_figures import ProgramFigures, program_harms, program_standings
from npuops.schedlab.program_line_up import ProgramRival, program_line_up
from npuops.schedlab.programs import PROGRAMS
from npuops.schedlab.recording import Origin
from npuops.schedlab.rival_content import contents, demand_same
from npuops.schedlab.rival_names import AGAIN, NAMES
from npuops.schedlab.rivals import Rival, StaticRule
from npuops.schedlab.simulated_theatre import SimulatedTheatre
from npuops.schedlab.static_search import Place, grid
from npuops.schedlab.theatre import Theatre

CONTROL_SHARE: Final = 0.0
"""Rivals are compared from outside here, so that an agent need not spend time in the default to compare itself."""
_SCENES, _QUICK_SCENES = 16, 2
_SEARCH_SEEDS: Final = (900_001, 900_002)
"""Of arrivals in which settings of single mixes are searched; no repeat has them."""
_QUICK_RULES: Final = 6
_LONG_MINUTES: Final = 30


def run_bench(options: BenchOptions, observe: Observer = ignore) -> Report:
    """Play, and tell what came of it; plays that the log has already are not played again.

    Raises:
        OptionError: a name that nobody has, nothing to play, thresholds that are none, or a log that was begun
            otherwise.
        MissingToolchainError: nothing is asked for but programs that are not here.
        StorageError: the folder cannot be written, or the policy's not be read.
        IntegrityError: the learned policy's folder is damaged.
        IncompatibleArtifactError: it is of another npuops.
        As `load_program`, on the kernel.
    """
    began = time.monotonic()
    until_s = None if options.most_minutes is None else began + 60 * options.most_minutes
    plan = planned(options, observe)
    made = contents(thresholds=options.thresholds, folder=options.folder)
    with ExitStack() as stack:
        log = stack.enter_context(_log(options, plan, made, observe))
        head = log.head
        rivals = line_up(
            _rivals(options), head.statics, head.statics_here, thresholds=options.thresholds, folder=options.folder
        )
        others = program_line_up(options.rivals, thresholds=options.thresholds, folder=options.folder)
        turns = [
            *_mix_turns(options, plan, rivals, head),
            *_program_turns(options, plan, others, head),
        ]
        todo = still_to_play(in_order(turns, options.seed), log)
        _tell_length(options, len(turns), todo, time.monotonic() - began, observe)
        missing = Counter(key[0] for key in perform(todo, log, observe, until_s=until_s))
        played = dict.fromkeys(one.load for one in log.programs)
        figures = ProgramFigures(
            loads={
                name: f"{PROGRAMS[name].words}; SLO {PROGRAMS[name].slo_us / 1000:g} ms"
                for name in played
                if name in PROGRAMS
            },
            rivals={rival.name: rival.note for rival in others},
            left_out=plan.left_out,
            standings=program_standings(log.programs),
            harms=program_harms(log.programs),
            energies=energies(log.programs),
        )
        notes = {rival.name: rival.note for rival in rivals}
        return write_report(options.out, log, notes, plan.mixes, figures, missing, observe)


def _mix_turns(options: BenchOptions, plan: BenchPlan, rivals: Sequence[Rival], head: Head) -> list[Turn]:
    if not plan.mixes:
        return []
    bill = Bill(
        mixes=plan.mixes,
        entrants=entrants(rivals, HEARING[options.hints]),
        repeats=options.repeats,
        seed=options.seed,
        tries=options.tries if options.on is Origin.KERNEL else 1,
    )
    return bill.turns(_theatre(head))


def _program_turns(options: BenchOptions, plan: BenchPlan, rivals: tuple[ProgramRival, ...], head: Head) -> list[Turn]:
    bill = ProgramBill(
        loads=plan.loads,
        rivals=rivals,
        hearing=HEARING[options.hints],
        seconds=plan.seconds,
        repeats=options.repeats,
        seed=options.seed,
        tries=options.tries,
        arguments=_arguments(head),
    )
    return bill.turns()


def _tell_length(options: BenchOptions, whole: int, todo: Sequence[Turn], took_s: float, observe: Observer) -> None:
    """Before hours pass, their length is told."""
    minutes = sum(turn.load_s for turn in todo) / 60
    limit = "; --most-minutes would end it earlier" if options.most_minutes is None else ""
    words = f"{len(todo)} of {whole} plays, {minutes:.0f} minutes of load and what it takes to set it up"
    observe(StepFinished(step="plan", seconds=took_s, detail=words + (limit if minutes >= _LONG_MINUTES else "")))


def _rivals(options: BenchOptions) -> tuple[str, ...]:
    """A second default says something only where something is random."""
    if options.on is Origin.KERNEL or "all" not in options.rivals:
        return options.rivals
    return tuple(name for name in NAMES if name != AGAIN)


def write_report(
    out: Path,
    log: PlayLog,
    notes: dict[str, str],
    mixes: Mapping[str, Mix],
    programs: ProgramFigures,
    missing: Mapping[str, int],
    observe: Observer = ignore,
) -> Report:
    """Report and plots of all plays in a log.

    Args:
        out: folder.
        log: with all plays so far.
        notes: what the rivals on mixes are.
        mixes: by name, for plots.
        programs: what real programs came to.
        missing: plays that are still to come, by mix or load.
        observe: hears of the plots.

    Raises:
        StorageError: they cannot be written.
    """
    found = report(log.head, log.mixes, notes, programs, missing)
    write_output(out / "report.json", msgspec.json.encode(found) + b"\n")
    write_output(out / "report.md", markdown(found, log.mixes, log.programs).encode())
    try:
        began = time.monotonic()
        files = draw(out, log.mixes, found.standings, mixes, programs.standings)
        observe(StepFinished(step="plots", seconds=time.monotonic() - began, detail=f"{len(files)} files"))
    except MissingToolchainError as error:
        observe(Warned(step="plots", message=error.message, advice=error.advice))
    return found


def _theatre(head: Head) -> Theatre:
    if head.calibration is None:
        return SimulatedTheatre(Rules(scheduler=head.scheduler), control_share=head.control_share)
    return KernelTheatre(head.calibration, arguments=_arguments(head))


def _arguments(head: Head) -> tuple[str, ...]:
    """Of every agent."""
    return "--control-share", f"{head.control_share * 100:g}", "--cpu-share", f"{head.cpu_share * 100:g}"


def _log(options: BenchOptions, plan: BenchPlan, made: Mapping[str, str], observe: Observer) -> PlayLog:
    path = options.out / NAME
    if not options.resume:
        if path.exists():
            raise OptionError(f"{path} has plays already", advice="go on with --resume, or name another --out")
        return new_log(path, _head(options, plan.mixes, made, observe))
    log = open_log(path)
    try:
        _check_same(options, plan, log, path)
        demand_same(path, log.head.contents, made, made if "all" in options.rivals else options.rivals)
    except OptionError:
        log.__exit__(None, None, None)
        raise
    return log


def _check_same(options: BenchOptions, plan: BenchPlan, log: PlayLog, path: Path) -> None:
    """What goes on with a log must be what began it."""
    head = log.head
    lengths = {one.outcome.seconds for one in log.programs if one.outcome is not None} if plan.loads else ()
    for name, ours, theirs in (
        ("--on", options.on.value, head.on.value),
        ("--scheduler", options.scheduler, head.scheduler),
        ("--seed", options.seed, head.seed),
        ("--quick", options.quick, head.quick),
        ("the kernel", os.uname().release, head.kernel),
        ("npuops", __version__, head.version),
        ("--cpu-share", f"{options.cpu_percent:g}", f"{head.cpu_share * 100:g}"),
        *(("--programs-seconds", plan.seconds, length) for length in lengths),
    ):
        if ours != theirs:
            raise OptionError(
                f"{path} was begun with {name} {theirs}, now it is {ours}", advice="begin another one with --out"
            )
    wanted = set(NAMES if "all" in options.rivals else options.rivals) if plan.mixes else set()
    unknown: list[str] = [name for name in SEARCHED if name in wanted and name not in head.statics]
    unknown += [
        f"{name} on {mix}"
        for name in SEARCHED_HERE
        for mix in plan.mixes
        if name in wanted and mix not in head.statics_here.get(name, {})
    ]
    if unknown:
        raise OptionError(
            f"{path} was begun without the search for {', '.join(unknown)}", advice="begin another one with --out"
        )


def _head(options: BenchOptions, mixes: Mapping[str, Mix], made: Mapping[str, str], observe: Observer) -> Head:
    scenes = [lesson(number) for number in range(_QUICK_SCENES if options.quick else _SCENES)]
    places = {
        name: [
            Place(mix, seed, Rules(scheduler=options.scheduler)) for seed in _SEARCH_SEEDS[: 1 if options.quick else 2]
        ]
        for name, mix in mixes.items()
    }
    rules = _few_rules() if options.quick else ()

    def told(done: int, whole: int) -> None:
        observe(StepProgressed(step="search", done=done, total=whole, detail="static settings"))

    began = time.monotonic()
    statics, here = search_statics(options.rivals if mixes else (), scenes, places, rules, told)
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
        cpu_share=options.cpu_percent / 100,
        contents=dict(made),
        scheduler=options.scheduler,
    )


def _few_rules() -> list[StaticRule]:
    rules = list(grid())
    return rules[:: max(1, len(rules) // _QUICK_RULES)]
