"""What every verb shares: the console, JSON, and progress."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from npuops.events import Event, Observer, StepFinished, StepProgressed, StepStarted, Warned, ignore

if TYPE_CHECKING:
    from npuops.cli.screen import Screen

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON (its schema is a documented contract).")]

EXIT_NO = 1
"""The gate or the check said no."""


def print_json(value: object) -> None:
    """A dataclass (or any plain structure) as indented JSON on standard output, in UTF-8 whatever the locale.

    Raises:
        UsageError: a name in it is no text (a path in another encoding).
    """
    import msgspec  # noqa: PLC0415 - help must not pay for it

    from npuops.cli.json_line import encoded  # noqa: PLC0415 - as above

    line = encoded(value)
    sys.stdout.flush()
    sys.stdout.buffer.write(msgspec.json.format(line, indent=2) + b"\n")


def console() -> Screen:
    """The console for people, on standard output."""
    return _screen(stderr=False)


def _screen(*, stderr: bool) -> Screen:
    from npuops.cli.screen import Screen  # noqa: PLC0415 - help must not pay for it

    return Screen(stderr=stderr)


def print_hanging(screen: Screen, label: str, text: str, style: str = "") -> None:
    """The text beside its label, wrapped at words, with the label's column left free below it."""
    from rich.table import Table  # noqa: PLC0415 - help must not pay for it
    from rich.text import Text  # noqa: PLC0415 - as above

    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_column(width=len(label), no_wrap=True)
    line.add_column(overflow="fold")
    line.add_row(Text(label, style=style), Text(text, style=style))
    screen.print(line)


@contextmanager
def progress(*, quiet: bool) -> Iterator[Observer]:
    """An observer that shows steps on standard error; silent when `quiet`.

    On a terminal the running step is a live line; elsewhere each finished step is one line.
    """
    if quiet:
        yield ignore
        return
    from rich.text import Text  # noqa: PLC0415 - help must not pay for it

    screen = _screen(stderr=True)
    with screen.status("") as status:

        def observe(event: Event) -> None:
            match event:
                case StepStarted(step=step, detail=detail):
                    status.update(Text(f"{step} {detail}".rstrip()))
                case StepProgressed(step=step, done=done, total=total, detail=detail):
                    count = f"{done}/{total}" if total else f"{done}"
                    status.update(Text(f"{step} {count} {detail}".rstrip()))
                case StepFinished(step=step, seconds=seconds, detail=detail):
                    print_hanging(screen, f"  {step:<10} {seconds:7.2f} s ", detail)
                case Warned(step=step, message=message, advice=advice):
                    print_hanging(screen, f"  {step:<10} warning   ", message, "yellow")
                    if advice:
                        print_hanging(screen, f"{'':22}", advice, "dim")
                case _:
                    pass

        yield observe
