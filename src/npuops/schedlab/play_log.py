"""The log of an experiment: a line for each play, on disk before the next one begins. What was played stays played.

An experiment that was interrupted goes on where it was; a line that its writer did not finish is taken back.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from npuops.artifacts.disk import storage_errors
from npuops.errors import DataError, OptionError, StorageError
from npuops.schedlab.played import SCHEMA, AnyPlayed, Head, Key, Played, ProgramPlayed

NAME: Final = "plays.jsonl"
Line = TypeVar("Line", bound=msgspec.Struct)


class PlayLog:
    """Open for appending."""

    def __init__(self, path: Path, head: Head, plays: dict[Key, AnyPlayed]) -> None:
        """Of a file that is there and whole; `new_log` and `open_log` make one."""
        self.head = head
        self.plays = plays
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        os.close(self._file)

    @property
    def mixes(self) -> list[Played]:
        """All plays of mixes."""
        return [played for played in self.plays.values() if isinstance(played, Played)]

    @property
    def programs(self) -> list[ProgramPlayed]:
        """All plays of real programs."""
        return [played for played in self.plays.values() if isinstance(played, ProgramPlayed)]

    def append(self, played: AnyPlayed) -> None:
        """Keep it, for good.

        Raises:
            StorageError: the disk is full, or failed; the line is taken back.
        """
        end = os.fstat(self._file).st_size
        try:
            _write(self._file, msgspec.json.encode(played) + b"\n")
        except OSError as error:
            os.ftruncate(self._file, end)
            raise StorageError(
                f"{self._path} cannot be written: {error.strerror}", advice="make room, then go on with --resume"
            ) from error
        self.plays[played.key] = played


def new_log(path: Path, head: Head) -> PlayLog:
    """Begin one.

    Raises:
        OptionError: there is one already.
        StorageError: it cannot be written.
    """
    if path.exists():
        raise OptionError(f"{path} has plays already", advice="go on with --resume, or name another --out")
    with storage_errors("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(head) + b"\n")
    return PlayLog(path, head, {})


def open_log(path: Path) -> PlayLog:
    """Go on with one.

    Raises:
        DataError: no such log, or a damaged one.
        StorageError: it cannot be written.
    """
    head, plays, whole = _read(path)
    with storage_errors("write", path):
        os.truncate(path, whole)
        return PlayLog(path, head, {played.key: played for played in plays})


def _read(path: Path) -> tuple[Head, list[AnyPlayed], int]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", advice="without --resume one is begun") from error
    whole = content.rfind(b"\n") + 1
    lines = content[:whole].splitlines()
    if not lines:
        raise DataError(f"{path} has not even a head", advice="remove it, and begin again")
    head = _decoded(path, 1, lines[0], Head)
    if head.schema != SCHEMA:
        words = f"{path} has schema {head.schema!r}, this npuops reads {SCHEMA!r}"
        raise DataError(words, advice="begin another one with another --out")
    return head, [_play(path, number, line) for number, line in enumerate(lines[1:], 2)], whole


class _Subject(msgspec.Struct):
    """By what a line is about one knows what it is."""

    load: str | None = None


def _play(path: Path, number: int, line: bytes) -> AnyPlayed:
    if _decoded(path, number, line, _Subject).load is None:
        return _decoded(path, number, line, Played)
    return _decoded(path, number, line, ProgramPlayed)


def _decoded(path: Path, number: int, line: bytes, kind: type[Line]) -> Line:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, OptionError) as error:  # OptionError: a setting nobody can set
        words = f"{path}, line {number}: not what npuops writes ({error})"
        raise DataError(words, advice="name another --out, or remove what is wrong") from error


def _write(file: int, line: bytes) -> None:
    written = 0
    while written < len(line):
        written += os.write(file, line[written:])
    os.fsync(file)
