"""How a verb ends when something is wrong: one place for the words, the JSON and the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Final

import typer

from npuops.cli.show import print_json
from npuops.errors import NpuopsError, StorageError
from npuops.report.printable import printable

SERVE_SCHEMA: Final = "npuops.serve/1"
"""Of the lines of `npuops serve --json`."""
EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141
"""As a shell counts SIGPIPE: who reads only the head of the output must not take it for a pass, nor for a no."""


@contextmanager
def ending_errors(arguments: Sequence[str]) -> Iterator[None]:
    """End the program on an error: message and advice on standard error, and its exit code.

    With `--json` among the arguments the error is one JSON object on standard output, also for wrong use; of the
    verb `serve` it is one more of its lines.
    """
    verb = next((word for word in arguments[1:] if not word.startswith("-")), "")
    try:
        try:
            with _answering(as_json="--json" in arguments, as_line=verb == "serve"):
                yield
        finally:
            sys.stdout.flush()  # now, while a full disk or a closed pipe can still be answered
    except BrokenPipeError:
        _drop_output()
        raise SystemExit(EXIT_BROKEN_PIPE) from None
    except OSError as error:
        _drop_output()
        _say(StorageError.__name__, f"cannot write the answer: {error.strerror}", "", as_json=False)
        raise SystemExit(StorageError.exit_code) from None


@contextmanager
def _answering(*, as_json: bool, as_line: bool) -> Iterator[None]:
    say = partial(_say_line if as_line and as_json else _say, as_json=as_json)
    try:
        yield
    except NpuopsError as error:
        say(type(error).__name__, error.message, error.advice)
        raise SystemExit(error.exit_code) from None
    except typer.TyperException as error:
        if not as_json:
            raise  # typer shows the usage with it
        say("UsageError", error.format_message(), "see --help")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        say("Interrupted", "interrupted; nothing half-written was left behind", "")
        raise SystemExit(EXIT_INTERRUPTED) from None
    except OSError as error:
        if error.filename is None:
            raise  # of the output itself
        say(StorageError.__name__, str(error), "")
        raise SystemExit(StorageError.exit_code) from None


def _say(kind: str, message: str, advice: str, *, as_json: bool) -> None:
    message, advice = printable(message), printable(advice)
    if as_json:
        print_json({"error": kind, "message": message, "advice": advice})
        return
    sys.stderr.write(f"error: {message}\n")
    if advice:
        sys.stderr.write(f"advice: {advice}\n")


def _say_line(kind: str, message: str, advice: str, *, as_json: bool) -> None:
    """As the last event of a server that did not start, or did not go on (docs/serving.md)."""
    from npuops.cli.json_line import print_json_line  # noqa: PLC0415 - help must not pay for it

    del as_json
    detail = {"error": kind, "message": printable(message), "advice": printable(advice)}
    print_json_line({"schema": SERVE_SCHEMA, "time": datetime.now(UTC), "event": "Failed", "detail": detail})


def _drop_output() -> None:
    """What is still buffered goes nowhere, so that the interpreter does not fail once more when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
