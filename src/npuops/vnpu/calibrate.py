"""Calibrate a profile on a user's measurements, from files to a file."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from npuops.artifacts.disk import replacing, storage_errors
from npuops.errors import OptionError
from npuops.events import Observer, ignore
from npuops.vnpu.fit_profile import fit_profile, with_effective
from npuops.vnpu.measured_rows import read_measured
from npuops.vnpu.profile import Profile, profile_text, read_profile


def calibrate(rows: Path, profile: str, out: Path, *, observe: Observer = ignore) -> Profile:
    """Fit the rates of `profile` to the rows and write it as TOML to `out`.

    Args:
        rows: CSV, see `npuops.vnpu.measured_rows`.
        profile: a bundled name, or a path.
        out: written whole or not at all.
        observe: gets the progress of reading the models.

    Raises:
        OptionError: no such profile, or a name of `out` by which it could not be opened.
        DataError: the rows cannot calibrate it.
        ModelError: a model cannot be read.
        MissingToolchainError: scipy is not installed.
        StorageError: `out` cannot be written.
    """
    if out.suffix != ".toml":
        raise OptionError(f"{out} is no name of a profile", advice=f"call it {out.with_suffix('.toml')}")
    text, where = profile_text(profile)
    chip = read_profile(text, where=where)
    measured = read_measured(rows, chip, observe=observe)
    source = f"fitted on {len(measured)} rows of {rows.name}, npuops profiles fit, {datetime.now(UTC):%Y-%m-%d}"
    written = with_effective(text, fit_profile(chip, measured, source=source, observe=observe))
    calibrated = read_profile(written, where=str(out))
    if replace(calibrated, effective=None) != replace(chip, effective=None):
        raise OptionError(
            f"{where} has an [effective] section that cannot be told from the rest", advice="remove it, and fit again"
        )
    with storage_errors("write", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out, out.with_name(f".{out.name}.{os.getpid()}.part")) as file:
            file.write(written.encode())
    return calibrated
