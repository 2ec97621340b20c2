"""Calibrate a profile on a user's measurements, from files to a file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from npuops.artifacts.disk import replacing, storage_errors
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
        OptionError: no such profile.
        DataError: the rows cannot calibrate it.
        MissingToolchainError: scipy is not installed.
        StorageError: `out` cannot be written.
    """
    text, where = profile_text(profile)
    chip = read_profile(text, where=where)
    measured = read_measured(rows, observe=observe)
    source = f"fitted on {len(measured)} rows of {rows.name}, npuops profiles fit, {datetime.now(UTC):%Y-%m-%d}"
    written = with_effective(text, fit_profile(chip, measured, source=source))
    calibrated = read_profile(written, where=str(out))
    with storage_errors("write", out), replacing(out, out.with_name(f".{out.name}.part")) as file:
        file.write(written.encode())
    return calibrated
