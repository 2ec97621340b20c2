"""The trace: everything that the agent saw, wanted, was refused and did, in a file that can be replayed exactly.

Layout: eight bytes of magic, then records, each of them its length and the CRC-32 of its bytes (both 32 bits, little
endian) and these bytes. The first record is the header, msgpack. Every other one is a piece of a single raw deflate
stream, flushed at its end (the four bytes that each flush ends with are left out), and holds one `trace_wire.Step`,
msgpack. So a file whose writer was killed, or whose disk was full, can be read up to its last whole record.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import msgspec

from npuops.errors import DataError, NpuopsError, StorageError
from npuops.hostsched.trace_wire import Decoder, Encoder, Entry, Step

MAGIC: Final = b"npuoTRC\n"
SCHEMA: Final = 1
"""Of the header and the steps. It grows with every change of what is kept, and of `levels.LEVELS`' meaning."""

_RECORD: Final = struct.Struct("<II")
_FLUSHED: Final = b"\0\0\xff\xff"
_MOST_BYTES: Final = 1 << 24
"""A record is far smaller: more is damage, or malice."""
_EXPECTED: Final = (ValueError, TypeError, LookupError, OverflowError, msgspec.MsgspecError, zlib.error, NpuopsError)
"""What the bytes of no writer of ours lead to."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all of a trace.

    Attributes:
        schema: `SCHEMA` of its writer.
        kernel: release, as in `uname -r`.
        cpus: online at the beginning.
        policy: name; "" in `observe`.
        mode: `observe`, `advise` or `act`.
        period_us: between looks, at the beginning.
        began_unix_us: when it was opened.
        version: of npuops.
    """

    schema: int
    kernel: str
    cpus: int
    policy: str
    mode: str
    period_us: int
    began_unix_us: int
    version: str


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A whole file, read.

    Attributes:
        header: what holds for all of it.
        entries: in order.
        damage: what is wrong at its end, and that the rest was read; "" for a trace that is whole.
    """

    header: Header
    entries: tuple[Entry, ...]
    damage: str


class TraceWriter:
    """Appends entries; what it was given before is in the file, whatever happens to this process."""

    def __init__(self, path: Path, header: Header) -> None:
        """Create the file.

        Raises:
            StorageError: it exists, or cannot be written.
        """
        self._path = path
        self._encoder = Encoder()
        self._deflate = zlib.compressobj(wbits=-15)
        self._end = 0
        self._why_ended = ""
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError as error:
            raise StorageError(
                f"{path} exists already", advice="traces are not overwritten: name another file, or remove it"
            ) from error
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}") from error
        self._append(MAGIC + _framed(msgspec.msgpack.encode(header)))

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @property
    def size_bytes(self) -> int:
        """Of the file so far."""
        return self._end

    def write(self, entry: Entry) -> None:
        """Append one.

        Raises:
            StorageError: the disk is full, or failed. The trace ends with the entry before; nothing more is written.
        """
        if self._why_ended:
            raise StorageError(self._why_ended)
        packed = msgspec.msgpack.encode(self._encoder.step(entry))
        squeezed = self._deflate.compress(packed) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self._append(_framed(squeezed.removesuffix(_FLUSHED)))

    def close(self) -> None:
        """No entry comes any more."""
        if not self._why_ended:
            os.close(self._file)
            self._why_ended = f"the trace {self._path} is closed"

    def _append(self, record: bytes) -> None:
        try:
            written = 0
            while written < len(record):
                written += os.write(self._file, record[written:])
        except OSError as error:
            self._end_here(f"{self._path} cannot be written: {error.strerror}; the trace ends here")
            raise StorageError(
                self._why_ended, advice="what was written so far can be read; make room for the next one"
            ) from error
        self._end += len(record)

    def _end_here(self, why: str) -> None:
        """Take back the torn record, if that much is possible: a reader tells it from a whole one anyway."""
        self._why_ended = why
        try:
            os.ftruncate(self._file, self._end)
        except OSError as error:
            self._why_ended = f"{why}, in the middle of an entry ({error.strerror})"
        finally:
            os.close(self._file)


class TraceReader:
    """Reads a trace entry by entry, for one that is larger than memory; `read_trace` has all at once."""

    def __init__(self, path: Path) -> None:
        """Open it and read its header.

        Raises:
            DataError: no trace, or one of a later npuops.
        """
        self.damage = ""
        """What is wrong at its end; known after the last entry."""
        self._path = path
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        try:
            self.header = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self._file.close()

    def __iter__(self) -> Iterator[Entry]:
        """Every whole entry, once; then `damage` is known."""
        decoder, inflate = Decoder(), zlib.decompressobj(wbits=-15)
        number = 0
        while (record := self._read_record(f"entry {number + 1}")) is not None:
            number += 1
            try:
                packed = inflate.decompress(record + _FLUSHED, _MOST_BYTES)
                entry = decoder.entry(msgspec.msgpack.decode(packed, type=Step))
            except _EXPECTED as error:
                self.damage = f"entry {number} is not what npuops writes ({error}); those before it were read"
                return
            yield entry

    def _read_header(self) -> Header:
        if self._read(len(MAGIC)) != MAGIC:
            raise DataError(f"{self._path} is not a trace", advice="`npuops hostsched observe --record` makes one")
        record = self._read_record("the header")
        if record is None:
            raise DataError(f"{self._path} is a trace that ends before it begins", advice="record it again")
        try:
            schema = msgspec.msgpack.decode(record, type=_Schema).schema
            if schema == SCHEMA:
                return msgspec.msgpack.decode(record, type=Header)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DataError(f"{self._path}: its header is not what npuops writes ({error})") from error
        raise DataError(
            f"{self._path} has layout {schema}, this npuops reads {SCHEMA}", advice="use the npuops that recorded it"
        )

    def _read_record(self, what: str) -> bytes | None:
        """None at the end, whole or torn."""
        frame = self._read(_RECORD.size)
        if not frame:
            return None
        torn = "its writer was killed or the disk was full; those before it were read"
        if len(frame) < _RECORD.size:
            self.damage = f"the trace ends in the middle of {what}: {torn}"
            return None
        size, crc = _RECORD.unpack(frame)
        if size > _MOST_BYTES:
            self.damage = f"{what} is damaged: it claims {size} bytes; those before it were read"
            return None
        record = self._read(size)
        if len(record) < size:
            self.damage = f"the trace ends in the middle of {what}: {torn}"
            return None
        if zlib.crc32(record) != crc:
            self.damage = f"{what} is damaged: its bytes are not those that were written; those before it were read"
            return None
        return record

    def _read(self, count: int) -> bytes:
        try:
            return self._file.read(count)
        except OSError as error:
            raise DataError(f"{self._path} cannot be read: {error.strerror}") from error


class _Schema(msgspec.Struct):
    schema: int


def read_trace(path: Path) -> Trace:
    """All of it, up to the first damage.

    Raises:
        DataError: no trace, or one of a later npuops.
    """
    with TraceReader(path) as reader:
        entries = tuple(reader)
        return Trace(reader.header, entries, reader.damage)


def _framed(record: bytes) -> bytes:
    return _RECORD.pack(len(record), zlib.crc32(record)) + record
