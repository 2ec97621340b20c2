"""How large the cache may grow: `$NPUOPS_CACHE_LIMIT`, or 20 GiB."""

from __future__ import annotations

import os
import re
from typing import Final

from npuops.errors import OptionError

LIMIT_VARIABLE: Final = "NPUOPS_CACHE_LIMIT"
DEFAULT_LIMIT_BYTES: Final = 20 << 30

_SIZE: Final = re.compile(r"(\d{1,18}(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB)?", re.ASCII)
_POWERS: Final = {"B": 0, "KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4}


def parse_bytes(words: str) -> int:
    """`2GiB`, `1.5 MiB` or `300` (bytes) → bytes. Decimal prefixes are refused: they are too often meant as these.

    Raises:
        OptionError: not of that form.
    """
    match = _SIZE.fullmatch(words.strip())
    if match is None:
        raise OptionError(f"{words!r} is no size", advice=f"for example 2GiB; the units are {', '.join(_POWERS)}")
    return int(float(match[1]) * 1024 ** _POWERS[match[2] or "B"])


def cache_limit() -> int:
    """Bytes that the cache of this user may have.

    Raises:
        OptionError: the environment variable is no size.
    """
    words = os.environ.get(LIMIT_VARIABLE)
    if not words:
        return DEFAULT_LIMIT_BYTES
    try:
        return parse_bytes(words)
    except OptionError as error:
        raise OptionError(f"${LIMIT_VARIABLE}: {error.message}", advice=error.advice) from error
