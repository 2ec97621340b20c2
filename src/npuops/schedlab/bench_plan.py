"""What a bench is asked for, and what that comes to on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from npuops.eevdf.mix import Mix
from npuops.eevdf.rules import Scheduler
from npuops.errors import MissingToolchainError, OptionError, nearest
from npuops.events import Observer, Warned, ignore
from npuops.hostsched.pace import USUAL_US, Pace
from npuops.schedlab.experiment import quick
from npuops.schedlab.mixes import CONTROLS, HELD_OUT, by_name
from npuops.schedlab.program_bill import QUICK_S, chosen_programs
from npuops.schedlab.program_line_up import program_line_up
from npuops.schedlab.program_load import ProgramLoad
from npuops.schedlab.program_play import LEAST_S
from npuops.schedlab.recording import Origin
from npuops.schedlab.rival_names import DEFAULT

QUICK_MIXES: Final = ("four-phase", "stationary")
HEARING: Final = {"none": (False,), "all": (True,), "both": (False, True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """As the command line says.

    Attributes:
        mixes: names, or `held-out`, `controls`, `all`, `none`.
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
        cpu_percent: of one core that the agent may take.
        programs: names of loads of real programs, or `all`, `none`.
        programs_seconds: length of their plays.
        most_minutes: after which no play begins; None: all are played.
        scheduler: whose rules the simulator follows: `eevdf`, or `cfs` for comparison.
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
    cpu_percent: float = 1.0
    programs: tuple[str, ...] = ("none",)
    programs_seconds: float = 10.0
    most_minutes: float | None = None
    scheduler: Scheduler = "eevdf"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """What the options come to on this machine.

    Attributes:
        mixes: by name.
        loads: of real programs, by name, whose commands are here.
        left_out: loads that were asked for, and why they are not played.
        seconds: length of a play of programs.
    """

    mixes: dict[str, Mix]
    loads: dict[str, ProgramLoad]
    left_out: dict[str, str]
    seconds: float


def planned(options: BenchOptions, observe: Observer = ignore) -> BenchPlan:
    """Whatever is wrong with the options is told before anything is searched or written.

    Raises:
        OptionError: a name that nobody has, nothing to play, or a share of a core that no agent takes.
        MissingToolchainError: nothing is asked for but programs that are not here.
    """
    Pace(USUAL_US, options.cpu_percent / 100)  # as every agent will
    if options.hints not in HEARING:
        raise OptionError(f"--hints is {options.hints!r}", advice=nearest(options.hints, HEARING))
    rivals = program_line_up(options.rivals)
    mixes = chosen_mixes(options.mixes, is_quick=options.quick)
    loads, left_out = chosen_programs(options.programs, is_quick=options.quick)
    if (loads or left_out) and options.on is not Origin.KERNEL:
        raise OptionError(
            "--programs plays real programs, and the simulator has none", advice="leave it out, or take --on kernel"
        )
    if options.scheduler != "eevdf" and options.on is Origin.KERNEL:
        raise OptionError(
            f"--scheduler {options.scheduler}: this machine's kernel has the scheduler that it has",
            advice="--on simulator follows the rules of either",
        )
    if not options.programs_seconds >= LEAST_S:
        raise OptionError(f"--programs-seconds is {options.programs_seconds:g}", advice=f"at least {LEAST_S:g}")
    for why in left_out.values():
        observe(Warned(step="programs", message=f"left out: {why}"))
    if not mixes and not loads:
        if left_out:
            raise MissingToolchainError("; ".join(left_out.values()))
        raise OptionError("neither mixes nor programs are to be played", advice="--programs all, or --mixes all")
    if not mixes and DEFAULT not in options.rivals and len(rivals) == 1:
        raise OptionError(
            f"no program is played under {', '.join(options.rivals)}: nobody knows what it will do",
            advice="name another of --rivals",
        )
    seconds = min(options.programs_seconds, QUICK_S) if options.quick else options.programs_seconds
    return BenchPlan(mixes=mixes, loads=loads, left_out=left_out, seconds=seconds)


def chosen_mixes(names: Sequence[str], *, is_quick: bool) -> dict[str, Mix]:
    """By name, in the order in which they are named.

    Raises:
        OptionError: no mix of that name.
    """
    if tuple(names) == ("none",):
        return {}
    groups = {"held-out": tuple(HELD_OUT), "controls": tuple(CONTROLS), "all": (*HELD_OUT, *CONTROLS)}
    if is_quick and tuple(names) in {("all",), ("held-out",), ("controls",)}:
        names = QUICK_MIXES
    found = {}
    for name in (each for group in names for each in groups.get(group, (group,))):
        mix = by_name(name)
        found[name] = quick(mix) if is_quick else mix
    return found
