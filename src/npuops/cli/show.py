"""What every verb shares: the console, JSON, progress, and how an error ends the program."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer

from npuops.errors import NpuopsError
from npuops.events import Event, Observer, StepFinished, StepProgressed, StepStarted, Warned, ignore

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON (its schema is a documented contract).")]

_ENDLESS: Final = 10_000

EXIT_NO = 1
"""The gate or the check said no."""


def print_json(value: object) -> None:
    """A dataclass (or any plain structure) as indented JSON on standard output."""
    import msgspec  # noqa: PLC0415 - help must not pay for it

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def console() -> Any:
    """The rich console for people, on standard output."""
    return _console(stderr=False)


def _console(*, stderr: bool) -> Any:
    """As wide as the terminal; a pipe or a file has no width, so nothing is wrapped, folded or cut there."""
    from rich.console import Console  # noqa: PLC0415 - help must not pay for it

    screen = Console(stderr=stderr, highlight=False)
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        screen.width = _ENDLESS
    return screen


def print_hanging(screen: Any, label: str, text: str, style: str = "") -> None:
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
    screen = _console(stderr=True)
    with screen.status("") as status:

        def observe(event: Event) -> None:
            match event:
                case StepStarted(step=step, detail=detail):
                    status.update(f"{step} {detail}".rstrip())
                case StepProgressed(step=step, done=done, total=total, detail=detail):
                    count = f"{done}/{total}" if total else f"{done}"
                    status.update(f"{step} {count} {detail}".rstrip())
                case StepFinished(step=step, seconds=seconds, detail=detail):
                    print_hanging(screen, f"  {step:<10} {seconds:7.2f} s ", detail)
                case Warned(step=step, message=message, advice=advice):
                    print_hanging(screen, f"  {step:<10} warning   ", message, "yellow")
                    if advice:
                        print_hanging(screen, f"{'':22}", advice, "dim")
                case _:
                    pass

        yield observe


@contextmanager
def ending_errors(arguments: Sequence[str]) -> Iterator[None]:
    """End the program on one of our errors: message and advice on standard error, and its exit code.

    With `--json` among the arguments the error is one JSON object on standard output.
    """
    try:
        yield
    except NpuopsError as error:
        if "--json" in arguments:
            print_json({"error": type(error).__name__, "message": error.message, "advice": error.advice})
        else:
            sys.stderr.write(f"error: {error.message}\n")
            if error.advice:
                sys.stderr.write(f"advice: {error.advice}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing half-written was left behind\n")
        raise SystemExit(130) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None
