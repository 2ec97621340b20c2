"""`npuops hostsched validate --switches`: what the kernel did, change of task by change of task, replayed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from npuops.cli.show import console, print_json, progress
from npuops.events import StepFinished, StepStarted, Warned

if TYPE_CHECKING:
    from npuops.schedlab.switch_trace import SwitchTrace
    from npuops.schedlab.validation_cells import Treatment


def compare_switches(
    mixes: Sequence[str],
    treatments: Sequence[Treatment],
    *,
    seconds: float,
    seed: int,
    shield: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Record a play of each mix under each setting, replay it, and print how near that comes."""
    from npuops.eevdf.compiled import outlook  # noqa: PLC0415 - help must not pay for it
    from npuops.schedlab.load_program import calibrate, load_program  # noqa: PLC0415 - as above
    from npuops.schedlab.switch_agreement import agreement_lines, agreement_of  # noqa: PLC0415 - as above
    from npuops.schedlab.switch_recorder import record  # noqa: PLC0415 - as above
    from npuops.schedlab.validate import local_rules  # noqa: PLC0415 - as above
    from npuops.schedlab.validation_cells import cells  # noqa: PLC0415 - as above

    found = []
    with progress(quiet=as_json) as observer:
        if (told := outlook()) is not None:
            observer(Warned(step="replay", message=told))
        calibration = calibrate(load_program())
        for cell in cells(mixes, treatments, seconds):
            name = f"{cell.mix.name}, {cell.treatment.name}"
            observer(StepStarted(step="record", detail=name))
            trace = record(cell, seed, calibration, shield=shield)
            _keep(trace, out)
            found.append(agreement_of(trace, local_rules()))
            observer(StepFinished(step="record", seconds=trace.play.duration_ns / 1e9, detail=name))
    if as_json:
        print_json(found)
        return
    for number, one in enumerate(found):
        for line in ("",) * (number > 0) + tuple(agreement_lines(one)):
            console().print(line, soft_wrap=True)


def _keep(trace: SwitchTrace, out: Path | None) -> None:
    from npuops.artifacts.disk import storage_errors  # noqa: PLC0415 - as above
    from npuops.schedlab.switch_trace import write_trace  # noqa: PLC0415 - as above

    if out is None:
        return
    with storage_errors("write", out):
        out.mkdir(parents=True, exist_ok=True)
    plain = "".join(letter if letter.isalnum() else "-" for letter in f"{trace.play.mix}-{trace.play.treatment}")
    write_trace(trace, out / f"{plain}.switches.npz")
