"""`npuops hostsched validate`: the simulator held against this machine's kernel."""

from __future__ import annotations

import errno
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from npuops.cli.hostsched_switches import compare_switches
from npuops.cli.show import JsonFlag, console, print_json, progress
from npuops.events import Warned

if TYPE_CHECKING:
    from collections.abc import Callable

    from npuops.schedlab.outcome import Outcome
    from npuops.schedlab.validate import Bench
    from npuops.schedlab.validation_cells import Treatment
    from npuops.schedlab.validation_report import ClosedForm, Validation

SettingsFlag = Annotated[
    list[str] | None,
    typer.Option("--setting", help="By name, or as 'nice=-10@A,idle@H*'; can be repeated. Default: all known."),
]
MixesFlag = Annotated[list[str] | None, typer.Option("--mix", help="Can be repeated. Default: all of validation.")]
RandomFlag = Annotated[int, typer.Option("--random", min=0, max=100, help="So many settings drawn at random besides.")]
RepeatsFlag = Annotated[int, typer.Option("--repeats", min=1, help="Plays of each cell on the kernel.")]
SecondsFlag = Annotated[float, typer.Option("--seconds", min=0.5, max=60, help="Of each play.")]
TriesFlag = Annotated[int, typer.Option("--tries", min=1, help="A play that others disturb is played so often.")]
SimulatedFlag = Annotated[int, typer.Option("--simulated", min=1, max=100, help="Simulated plays for each real one.")]
OutFlag = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Keep plays.jsonl, validation.json and validation.svg.")
]
ShieldFlag = Annotated[
    bool, typer.Option("--shield", help="Keep others off the CPUs while it plays, by the weight of the session.")
]
SwitchesFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--switches",
        metavar="MIX",
        help="Record every change of task of this mix (root), and replay it; can be repeated. --setting: default only.",
    ),
]


def validate(
    settings: SettingsFlag = None,
    mixes: MixesFlag = None,
    random: RandomFlag = 4,
    repeats: RepeatsFlag = 3,
    tries: TriesFlag = 3,
    seconds: SecondsFlag = 5.0,
    simulated: SimulatedFlag = 4,
    fit: Annotated[
        bool, typer.Option("--fit", help="Fit what a switch, a cold cache and a late tick cost to a few cells first.")
    ] = False,
    shield: ShieldFlag = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of arrivals, order and random settings.")] = 0,
    out: OutFlag = None,
    switches: SwitchesFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Play the same loads on the kernel and in the simulator, and compare. Exits 1 if a promised figure is missed."""
    if switches:
        named = _treatments(settings or ["default"], 0, seed)
        compare_switches(switches, named, seconds=seconds, seed=seed, shield=shield, out=out, as_json=as_json)
        return
    from npuops.eevdf.compiled import outlook  # noqa: PLC0415 - help must not pay for it
    from npuops.schedlab.load_program import calibrate, load_program  # noqa: PLC0415 - as above
    from npuops.schedlab.validate import Bench  # noqa: PLC0415 - as above
    from npuops.schedlab.validation_cells import MIXES, cells  # noqa: PLC0415 - as above
    from npuops.schedlab.validation_plot import require_matplotlib  # noqa: PLC0415 - as above
    from npuops.schedlab.validation_report import goal_lines, report_lines  # noqa: PLC0415 - as above

    if out is not None:
        require_matplotlib()
    chosen = cells(mixes or list(MIXES), _treatments(settings, random, seed), seconds)
    with ExitStack() as stack:
        observer = stack.enter_context(progress(quiet=as_json))
        if (told := outlook()) is not None:
            observer(Warned(step="simulate", message=told))
        keep = _keeper(stack, out)
        bench = Bench(
            chosen,
            repeats,
            simulated,
            seed,
            calibrate(load_program()),
            tries=tries,
            shield=shield,
            observer=observer,
            keep=keep,
        )
        found = _run(bench, fit=fit)
    if out is not None:
        _write(out, found)
    if as_json:
        print_json(found)
    else:
        for line in report_lines(found):
            console().print(line, soft_wrap=True)
    if not found.complete:
        raise KeyboardInterrupt
    if any(line.startswith("missed") for line in goal_lines(found.held_out)):
        raise typer.Exit(1)


def _run(bench: Bench, *, fit: bool) -> Validation:
    from npuops.schedlab.validation_cases import closed_forms  # noqa: PLC0415 - as above

    complete = False
    cases: tuple[ClosedForm, ...] = ()
    try:
        cases = tuple(closed_forms(bench.calibration, bench.rules, shield=bench.shield))
        bench.play()
        complete = True
    except KeyboardInterrupt:  # what was played is told; the exit code is that of an interruption
        bench.observer(Warned(step="validate", message="interrupted: what was played until now is compared"))
    if fit:
        bench.fit()
    return bench.report(fitted=fit, complete=complete, closed_forms=cases)


def _treatments(settings: list[str] | None, random: int, seed: int) -> list[Treatment]:
    from npuops.schedlab.validation_cells import (  # noqa: PLC0415 - as above
        DEFAULT,
        KNOWN,
        random_treatments,
        treatment_of,
    )

    names = list(dict.fromkeys([DEFAULT, *(settings or KNOWN)]))
    drawn = () if settings else random_treatments(random, seed)
    return [*(treatment_of(name) for name in names), *drawn]


def _keeper(stack: ExitStack, out: Path | None) -> Callable[[Outcome], object]:
    from npuops.artifacts.disk import storage_errors  # noqa: PLC0415 - as above
    from npuops.schedlab.outcome import write_json  # noqa: PLC0415 - as above

    if out is None:
        return id
    path = out / "plays.jsonl"
    with storage_errors("write", path):
        out.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(path.open("wb", buffering=0))

    def keep(outcome: Outcome) -> None:
        line = write_json(outcome)
        with storage_errors("write", path, need_bytes=len(line)):
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, "it took a part only")

    return keep


def _write(out: Path, found: Validation) -> None:
    import msgspec  # noqa: PLC0415 - as above

    from npuops.report.output_file import write_output  # noqa: PLC0415 - as above
    from npuops.schedlab.validation_plot import plot  # noqa: PLC0415 - as above

    write_output(out / "validation.json", msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    write_output(out / "validation.svg", plot(found))
