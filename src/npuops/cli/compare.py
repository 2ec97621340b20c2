"""`npuops compare`: two artifacts side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from npuops.artifacts.folder import opened
from npuops.cli.show import JsonFlag, console, print_json
from npuops.report.compare import Mark, Row, SideBySide, compare_artifacts

_MARKS: Final = {
    Mark.SAME: ("=", "dim"),
    Mark.BETTER: ("▲ better", "green"),
    Mark.WORSE: ("▼ worse", "red"),
    Mark.DIFFERENT: ("≠", "cyan"),
    Mark.NOT_COMPARABLE: ("∅", "yellow"),
}
_DIGEST_SHOWN: Final = len("sha256:") + 12


def command(
    a: Annotated[Path, typer.Argument(help="The artifact that is compared with.")],
    b: Annotated[Path, typer.Argument(help="The artifact that is judged better or worse.")],
    as_json: JsonFlag = False,
) -> None:
    """Verify both, and set their manifests beside each other."""
    with opened(a) as first, opened(b) as second:
        answer = compare_artifacts(first.manifest, second.manifest, name_a=str(a), name_b=str(b))
    if as_json:
        print_json(answer)
    else:
        _table(answer)


def _table(answer: SideBySide) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "", answer.a, answer.b, "B is"):
        table.add_column(heading, overflow="fold")
    group = ""
    for row in answer.rows:
        sign, style = _MARKS[row.mark]
        left, right = _values(row)
        title = "" if row.group == group else row.group
        mark = Text(f"{sign} {row.note}".rstrip(), style=style)
        table.add_row(Text(title, style="bold"), row.name, left, right, mark)
        group = row.group
    console().print(table)


def _values(row: Row) -> tuple[str, str]:
    """Digests are cut for the eye; the mark was decided by the whole of them."""
    if "digest" in row.name:
        return row.a[:_DIGEST_SHOWN], row.b[:_DIGEST_SHOWN]
    return row.a, row.b
