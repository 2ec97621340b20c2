"""What a model's author wrote is shown as it is."""

from __future__ import annotations

import pytest
from rich.table import Table
from rich.text import Text

from npuops.artifacts.evidence import Verdict
from npuops.cli.screen import Screen, verdict_text


def test_names_are_no_markup_no_picture_and_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "[red]a[/b]:x:\x1b[31m\u202e"
    table = Table(hostile, title=hostile, box=None)
    table.add_row(hostile)
    screen = Screen(stderr=False)
    screen.print(table)
    screen.print(hostile)
    screen.print(Text(hostile))
    out = capsys.readouterr().out
    assert out.count("[red]a[/b]:x:\ufffd[31m\ufffd") == 5
    assert "\x1b" not in out


def test_a_file_has_no_width(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    Screen(stderr=False).print("word " * 200)
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_a_colour(verdict: Verdict) -> None:
    assert verdict_text(verdict).plain == verdict
