"""JSON on standard output: how a value is encoded, and a line at once for a verb that goes on until interrupted."""

from __future__ import annotations

import sys

import msgspec

from npuops.errors import UsageError


def encoded(value: object) -> bytes:
    """A dataclass (or any plain structure) as JSON on one line, in UTF-8 whatever the locale.

    Raises:
        UsageError: a name in it is no text (a path in another encoding).
    """
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError as error:
        raise UsageError("a name is not in UTF-8, and JSON cannot hold it", advice="rename the file") from error


def print_json_line(value: object) -> None:
    """A value on standard output, at once.

    Raises:
        UsageError: as `encoded`.
    """
    line = encoded(value)
    sys.stdout.flush()
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()
