"""The kernel's trace buffer as it reads from `trace_pipe_raw`: pages of records, whose fields `format` files place.

Text would round moments to a microsecond, which is much for a turn of thirty, and a task can call itself anything, a
line break included. The layout is the kernel's promise to trace-cmd and perf (Documentation/trace/ring-buffer-map.rst,
`events/header_page`, `events/header_event`).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from npuops.errors import DataError

_FIELD: Final = re.compile(r"\bfield:[^;]*?(\w+)(?:\[\d*\])?;\s*offset:(\d+);\s*size:(\d+);\s*signed:([01]);")
_ID: Final = re.compile(r"^ID:\s*(\d+)$", re.MULTILINE)
_PAGE: Final = struct.Struct("=QQ")
_MISSED: Final = 0b11 << 30
"""In a page's length: records before it are missing."""
_PADDING, _EXTEND, _STAMP = 29, 30, 31
_CODES: Final = {(1, 0): "B", (1, 1): "b", (2, 0): "H", (2, 1): "h", (4, 0): "I", (4, 1): "i", (8, 0): "Q", (8, 1): "q"}


@dataclass(frozen=True, slots=True)
class RecordFormat:
    """Where the fields of one kind of record are.

    Attributes:
        number: the kernel's, of this kind.
        fields: wanted ones, in order.
        layout: reads them.
    """

    number: int
    fields: tuple[str, ...]
    layout: tuple[struct.Struct, ...]
    offsets: tuple[int, ...]

    def read(self, page: bytes, at: int) -> tuple[int, ...]:
        """Values of the fields of the record that begins there."""
        return tuple(
            layout.unpack_from(page, at + offset)[0] for layout, offset in zip(self.layout, self.offsets, strict=True)
        )


def record_format(text: str, fields: tuple[str, ...]) -> RecordFormat:
    """From the text of a `format` file.

    Raises:
        DataError: a field is not there, or is no whole number.
    """
    number = _ID.search(text)
    found = {name: (int(offset), (int(size), int(signed))) for name, offset, size, signed in _FIELD.findall(text)}
    missing = [name for name in fields if name not in found or found[name][1] not in _CODES]
    if number is None or missing:
        raise DataError(f"this kernel's trace records have no {', '.join(missing) or 'number'}")
    layout = tuple(struct.Struct("=" + _CODES[found[name][1]]) for name in fields)
    return RecordFormat(int(number[1]), fields, layout, tuple(found[name][0] for name in fields))


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record.

    Attributes:
        moment_ns: by the buffer's clock.
        number: of its kind.
        values: of the fields of its format.
    """

    moment_ns: int
    number: int
    values: tuple[int, ...]


def records(page: bytes, formats: dict[int, RecordFormat]) -> Iterator[RawRecord]:
    """Those of a page, oldest first; of other kinds than these, none.

    Raises:
        DataError: it ends within a record, or the kernel says that some before it are lost.
    """
    if len(page) < _PAGE.size:
        raise DataError(f"a page of the trace has {len(page)} bytes")
    moment, length = _PAGE.unpack_from(page)
    if length & _MISSED:
        raise DataError("the kernel lost records of this trace", advice="give it a larger buffer, or a shorter play")
    at, end = _PAGE.size, _PAGE.size + length
    if end > len(page):
        raise DataError(f"a page of the trace ends after {len(page)} of {end} bytes")
    while at + 4 <= end:
        (head,) = struct.unpack_from("=I", page, at)
        kind, delta = head & 31, head >> 5
        if kind == _PADDING and delta == 0:
            return
        if at + 8 > end:
            raise DataError("a page of the trace ends within a record's head")
        (more,) = struct.unpack_from("=I", page, at + 4)
        if kind == _STAMP:
            moment = delta + (more << 27) | moment >> 59 << 59
        else:
            moment += delta + (more << 27 if kind == _EXTEND else 0)
        if kind in (_EXTEND, _STAMP):
            at += 8
            continue
        size = 4 + (more if kind in (0, _PADDING) else 4 * kind)
        if kind != _PADDING:
            yield from _record(page, at + (8 if kind == 0 else 4), at + size, end, moment, formats)
        at += size


def _record(
    page: bytes, at: int, then: int, end: int, moment: int, formats: dict[int, RecordFormat]
) -> Iterator[RawRecord]:
    if then > end or at + 2 > then:
        raise DataError("a record of the trace is longer than its page")
    known = formats.get(struct.unpack_from("=H", page, at)[0])
    if known is not None:
        try:
            yield RawRecord(moment, known.number, known.read(page[:then], at))
        except struct.error as error:
            raise DataError(f"a record of the trace ends within a field: {error}") from error
