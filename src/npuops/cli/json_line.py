"""One JSON object a line, for a verb that goes on until it is interrupted."""

from __future__ import annotations

import sys

import msgspec

from npuops.errors import UsageError


def print_json_line(value: object) -> None:
    """A dataclass (or any plain structure) on standard output at once, in UTF-8 whatever the locale.

    Raises:
        UsageError: a name in it is no text (a path in another encoding).
    """
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError as error:
        raise UsageError("a name is not in UTF-8, and JSON cannot hold it", advice="rename the file") from error
    sys.stdout.flush()
    sys.stdout.buffer.write(encoded + b"\n")
    sys.stdout.buffer.flush()
