"""`npuops hostsched bench`: the experiment, from one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from npuops.cli.hostsched_flags import FolderFlag, ShareFlag, ThresholdsFlag
from npuops.cli.show import JsonFlag, console, print_json, progress
from npuops.errors import OptionError

if TYPE_CHECKING:
    from npuops.schedlab.experiment_report import Report

MixesFlag = Annotated[
    str,
    typer.Option("--mixes", help="Names with commas between them, or held-out, controls, all, none.", metavar="NAMES"),
]
ProgramsFlag = Annotated[
    str,
    typer.Option(
        "--programs", help="Loads of real programs (kernel): names with commas between them, or all.", metavar="NAMES"
    ),
]
SecondsFlag = Annotated[
    float, typer.Option("--programs-seconds", min=0.2, max=3600, help="Of each play of real programs.")
]
MinutesFlag = Annotated[
    float | None,
    typer.Option(
        "--most-minutes",
        metavar="N",
        min=0.01,
        help="After so long no play begins; the report tells what is missing, and --resume goes on.",
    ),
]
RivalsFlag = Annotated[
    str,
    typer.Option("--rivals", help="Names with commas between them, or all. The default always plays.", metavar="NAMES"),
]
RepeatsFlag = Annotated[int, typer.Option("--repeats", min=1, max=1000, help="Of each play, with other arrivals.")]
OnFlag = Annotated[str, typer.Option("--on", help="kernel or simulator.")]
SchedulerFlag = Annotated[
    str, typer.Option("--scheduler", help="Whose rules the simulator follows: eevdf, or cfs (before 6.6) to compare.")
]
HintsFlag = Annotated[str, typer.Option("--hints", help="What the apps tell the agent: none, all, or both in turn.")]
SeedFlag = Annotated[int, typer.Option("--seed", min=0, max=1_000_000, help="Of arrivals and order.")]
TriesFlag = Annotated[int, typer.Option("--tries", min=1, max=20, help="Of a play that others disturbed (kernel).")]
OutFlag = Annotated[Path, typer.Option("--out", help="Folder of the plays, the report and the plots.")]
ResumeFlag = Annotated[bool, typer.Option("--resume", help="Go on with what --out has; it is not played again.")]
QuickFlag = Annotated[
    bool, typer.Option("--quick", help="Two mixes, one load of programs, all short: to see that it works.")
]


def bench(
    mixes: MixesFlag = "all",
    rivals: RivalsFlag = "all",
    repeats: RepeatsFlag = 5,
    on: OnFlag = "kernel",
    scheduler: SchedulerFlag = "eevdf",
    programs: ProgramsFlag = "none",
    programs_seconds: SecondsFlag = 10.0,
    hints: HintsFlag = "both",
    seed: SeedFlag = 0,
    tries: TriesFlag = 3,
    out: OutFlag = Path("hostsched-bench"),
    policy_folder: FolderFlag = None,
    thresholds: ThresholdsFlag = None,
    cpu_share: ShareFlag = 1,
    most_minutes: MinutesFlag = None,
    resume: ResumeFlag = False,
    quick: QuickFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Play loads under rivals, again and again, and tell who served best and what it cost the others."""
    from npuops.eevdf.rules import Scheduler  # noqa: PLC0415 - help must not pay for it
    from npuops.schedlab.bench import run_bench  # noqa: PLC0415 - as above
    from npuops.schedlab.bench_plan import BenchOptions  # noqa: PLC0415 - as above
    from npuops.schedlab.recording import Origin  # noqa: PLC0415 - as above

    if on not in tuple(Origin):
        raise OptionError(f"--on is {on!r}", advice=" or ".join(Origin))
    if scheduler not in get_args(Scheduler):
        raise OptionError(f"--scheduler is {scheduler!r}", advice=" or ".join(get_args(Scheduler)))
    options = BenchOptions(
        mixes=_names(mixes, "--mixes"),
        rivals=_names(rivals, "--rivals"),
        repeats=repeats,
        on=Origin(on),
        hints=hints,
        seed=seed,
        tries=tries,
        out=out,
        resume=resume,
        quick=quick,
        thresholds=thresholds,
        folder=policy_folder,
        cpu_percent=cpu_share,
        programs=_names(programs, "--programs"),
        programs_seconds=programs_seconds,
        most_minutes=most_minutes,
        scheduler=cast("Scheduler", scheduler),
    )
    with progress(quiet=as_json) as observe:
        found = run_bench(options, observe)
    if as_json:
        print_json(found)
        return
    _show(found, out)


def _show(found: Report, out: Path) -> None:
    from npuops.schedlab.experiment_report import missing_words  # noqa: PLC0415 - as above
    from npuops.schedlab.program_report import program_lines  # noqa: PLC0415 - as above

    screen = console()
    for goal in found.goals:
        verdict = {True: "met", False: "missed", None: "unknown"}[goal.met]
        screen.print(f"{verdict:<8} {goal.label}: {goal.goal}: {goal.found}", markup=False, soft_wrap=True)
    for line in program_lines(found.programs):
        screen.print(line, markup=False, soft_wrap=True)
    screen.print(f"tables: {out / 'report.md'}", markup=False, soft_wrap=True)
    if found.missing:
        words = f"not finished, {missing_words(found.missing)} are missing: --resume goes on"
        screen.print(words, markup=False, soft_wrap=True)


def _names(text: str, flag: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not names:
        raise OptionError(f"{flag} names nobody", advice="leave it out, or name somebody")
    return names
