"""The console for people: shows names as they are, whatever a model's author put into them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import IO, Any, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from npuops.artifacts.evidence import Verdict
from npuops.report.printable import printable

_ENDLESS: Final = 10_000
_COLOUR: Final = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.ERROR: "red", Verdict.INCONCLUSIVE: "yellow"}


class Screen(Console):
    """As wide as the terminal; a pipe or a file has no width, so nothing is wrapped, folded or cut there.

    Brackets are no markup, `:x:` is no picture, and control characters from a file do not reach the terminal.
    """

    def __init__(self, *, stderr: bool, file: IO[str] | None = None) -> None:
        """`file`: in place of both."""
        super().__init__(file=file, stderr=stderr, highlight=False, markup=False, emoji=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = _ENDLESS

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does, of what can be shown: before it is measured, so that columns fit."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does, without control characters that are not rich's own, also in a Text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Rich would end the program with 1, which means "no" here."""
        raise  # noqa: PLE0704 - rich calls it while it handles the error


def verdict_text(verdict: Verdict, *, bold: bool = False) -> Text:
    """A verdict in its colour."""
    return Text(verdict, style=f"bold {_COLOUR[verdict]}" if bold else _COLOUR[verdict])
