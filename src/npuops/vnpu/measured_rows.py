"""Latencies that a user measured: a CSV file, one model a row.

A board runs a model as its compiler placed it, so a row is taken apart as `npuops check` puts it together: the chip's
rules place the layers, and what the host needs for its own, by the model, does not count for the NPU.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from npuops.errors import DataError, ModelError, nearest
from npuops.events import Observer, StepProgressed, Warned, ignore
from npuops.models.model import Model
from npuops.models.open import open_model
from npuops.units import format_us
from npuops.vnpu.crossing import border_of
from npuops.vnpu.fit_profile import Measured
from npuops.vnpu.predict import host_part_us, npu_part, unpriced
from npuops.vnpu.profile import Profile
from npuops.vnpu.rules import rules_of
from npuops.vnpu.work import workload_of

COLUMNS: Final = ("model", "latency_ms", "format", "group")
"""`format` is int8 where it is left out, `group` the model itself: a copy of its file counts as the same model."""
STEP: Final = "read models"
MOST_HOST: Final = 0.5
"""Of a row's time: where the host needs more by the model, which errs by ten, nothing is left to tell of the NPU."""
_COMMAS: Final = "commas between the columns, a point in the numbers: model,latency_ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A line whose numbers are good, before its model is opened."""

    where: str
    model: Path
    us: float
    format: str
    group: str


def read_measured(file: Path, chip: Profile, *, observe: Observer = ignore) -> tuple[Measured, ...]:
    """Read the rows, then the models that they name, which lie beside the file or where an absolute path says.

    Args:
        file: CSV with a line of column names.
        chip: that was measured, for its number formats and its rules.
        observe: gets `StepProgressed`, one for each model, and `Warned` of a row that is left out because its time is
            mostly the host's.

    Raises:
        DataError: not such a file, an unknown column, a row that is no measurement, a model of unknown sizes; the
            message names the line.
        ModelError: a model cannot be read.
    """
    rows = [_row(file, number, cells, chip.formats) for number, cells in _lines(file)]
    return tuple(_of_the_npu(_measured(rows, chip, observe), observe))


def _measured(rows: Sequence[_Row], chip: Profile, observe: Observer) -> Iterator[Measured]:
    for index, row in enumerate(rows):
        try:
            model = open_model(row.model)
        except ModelError as error:
            raise type(error)(f"{row.where}: {error.message}", advice=error.advice) from error
        yield _placed(row, model, chip)
        observe(StepProgressed(step=STEP, done=index + 1, total=len(rows)))


def _placed(row: _Row, model: Model, chip: Profile) -> Measured:
    placed = rules_of(chip.name, row.format)(model)
    lost = (*(tensor.name for tensor in model.inputs if not tensor.is_static), *unpriced(model, placed))
    if lost:
        raise DataError(
            f"{row.where}: {row.model.name} has inputs or layers of unknown size or work, such as {lost[0]!r}",
            advice="export it with the fixed shapes that were measured",
        )
    workload = workload_of(model)
    return Measured(
        workload=npu_part(workload, placed, border_of(model, placed)),
        format=row.format,
        us=row.us,
        host_us=host_part_us(workload, placed),
        group=row.group or str(model.digest),
        where=row.where,
    )


def _of_the_npu(rows: Iterable[Measured], observe: Observer) -> Iterator[Measured]:
    for row in rows:
        if row.host_us <= MOST_HOST * row.us:
            yield row
        else:
            host, whole = format_us(row.host_us), format_us(row.us)
            observe(
                Warned(
                    step=STEP,
                    message=f"{row.where}: left out: by the model the host needs {host} of {whole}",
                    advice="npuops check tells which of its layers fall back; measure models that run on the NPU",
                )
            )


def _lines(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Number and cells by column, of the lines that are not empty."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.reader(text, strict=True)
            names = [name.strip() for name in next(reader, [])]
            _check_columns(file, names)
            return [(reader.line_num, _cells(file, reader.line_num, names, cells)) for cells in reader if any(cells)]
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}", advice="the path of a CSV file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is no CSV file in UTF-8: {error}", advice=_COMMAS) from error


def _check_columns(file: Path, names: Sequence[str]) -> None:
    for name in names:
        if name not in COLUMNS:
            raise DataError(
                f"{file}: unknown column {name!r}", advice=_COMMAS if ";" in name else nearest(name, COLUMNS)
            )
        if names.count(name) > 1:
            raise DataError(f"{file} has the column {name!r} twice", advice="leave one of them out")
    missing = [name for name in COLUMNS[:2] if name not in names]
    if missing:
        raise DataError(f"{file} has no column {missing[0]!r}", advice=f"its columns are {', '.join(names) or 'none'}")


def _cells(file: Path, number: int, names: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if len(cells) > len(names):
        raise DataError(f"{file}, line {number}: {len(cells)} cells for {len(names)} columns", advice=_COMMAS)
    return dict(zip(names, (cell.strip() for cell in cells), strict=False))


def _row(file: Path, number: int, cells: dict[str, str], formats: Collection[str]) -> _Row:
    where = f"{file}, line {number}"
    if not cells.get("model"):
        raise DataError(f"{where} names no model", advice="the path of an ONNX or TFLite file, beside the CSV file")
    latency = cells.get("latency_ms", "")
    try:
        us = float(latency) * 1e3
    except ValueError:
        us = 0.0
    if not 0 < us < float("inf"):
        raise DataError(f"{where}: {latency!r} is no latency in milliseconds", advice="a number above 0")
    format_ = cells.get("format") or "int8"
    if format_ not in formats:
        raise DataError(f"{where}: the chip does not run {format_!r}", advice=nearest(format_, formats))
    path = file.parent / cells["model"]
    return _Row(where=where, model=path, us=us, format=format_, group=cells.get("group", ""))
