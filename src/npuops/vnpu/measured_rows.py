"""Latencies that a user measured: a CSV file, one model a row."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from npuops.errors import DataError, nearest
from npuops.events import Observer, StepProgressed, ignore
from npuops.models.open import open_model
from npuops.vnpu.fit_profile import Measured
from npuops.vnpu.work import workload_of

COLUMNS: Final = ("model", "latency_ms", "format", "group")
"""`format` is int8 where it is left out, `group` the model itself."""
STEP: Final = "read models"


def read_measured(file: Path, *, observe: Observer = ignore) -> tuple[Measured, ...]:
    """Read the rows and the models that they name, which lie beside the file or where an absolute path says.

    Args:
        file: CSV with a line of column names.
        observe: gets `StepProgressed`, one for each model.

    Raises:
        DataError: not such a file, an unknown column, a latency that is no number above 0.
        ModelError: a model cannot be read.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text)
            names = reader.fieldnames or []
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is no readable CSV file: {error}", advice="columns: model,latency_ms") from error
    for name in names:
        if name not in COLUMNS:
            raise DataError(f"{file}: unknown column {name!r}", advice=nearest(name, COLUMNS))
    missing = [name for name in COLUMNS[:2] if name not in names]
    if missing:
        raise DataError(f"{file} has no column {missing[0]!r}", advice=f"its columns are {', '.join(names) or 'none'}")
    rows = []
    for index, line in enumerate(lines):
        rows.append(_row(file, index + 2, line))
        observe(StepProgressed(step=STEP, done=index + 1, total=len(lines)))
    return tuple(rows)


def _row(file: Path, number: int, line: Mapping[str, str | None]) -> Measured:
    where = f"{file}, line {number}"
    try:
        us = float(line["latency_ms"] or "") * 1e3
    except ValueError:
        us = 0.0
    if not 0 < us < float("inf"):
        raise DataError(f"{where}: {line['latency_ms']!r} is no latency in milliseconds", advice="a number above 0")
    path = file.parent / (line["model"] or "")
    model = open_model(path)
    return Measured(
        workload=workload_of(model), format=line.get("format") or "int8", us=us, group=line.get("group") or path.stem
    )
