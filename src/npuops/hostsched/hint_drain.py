"""Reads what waits in a connection that hints come by, and keeps of it what counts: in our C, or in Python.

Both give the same. Of words of one sender about one subject only the last counts, and the rest is never looked at.
"""

from __future__ import annotations

import array
import ctypes
import os
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from npuops.hostsched.hint_wire import ABOUT, MAX_SIZE, may_be_hint
from npuops.hostsched.look_library import WORD_SIZE, CDrained, Library

MOST: Final = 512
"""Messages that are read in one call at most."""
CREDENTIALS: Final = struct.Struct("3i")
_SPACE: Final = socket.CMSG_SPACE(CREDENTIALS.size)
_SIZE: Final = struct.Struct("i")
_BEGINNING: Final = _SIZE.size + CREDENTIALS.size


@dataclass(slots=True)
class Drained:
    """What was found in a connection.

    Attributes:
        words_left: what it may still send; below 0 it is a flood.
        words: credentials and message, in the order in which they came; empty when the connection is over.
        read: messages.
        superseded: of these, those that a later one followed.
        malformed: of these, those that are no hint.
        bad_size: bytes of the last of these.
        ended: nobody is there any more.
        error: number of what went wrong; 0 if nothing did.
    """

    words_left: float
    words: list[tuple[bytes, bytes]]
    read: int = 0
    superseded: int = 0
    malformed: int = 0
    bad_size: int = 0
    ended: bool = False
    error: int = 0


Drain = Callable[[socket.socket, int, float, float], Drained]
"""Reads a connection: at most so many messages (`MOST`), with so many words left, of which a bad one costs so many."""


def drain_with(library: Library | None) -> Drain:
    """By the library, or without."""
    return drain if library is None else LibraryDrain(library)


def drain(line: socket.socket, most: int, words_left: float, bad: float) -> Drained:
    """In Python."""
    found = Drained(words_left, [])
    latest: dict[tuple[bytes, bytes], bytes] = {}
    while found.read < most and found.words_left >= 0:
        try:
            data, extra, flags, _ = line.recvmsg(MAX_SIZE, _SPACE)
        except BlockingIOError:
            break
        except OSError as error:
            found.error, found.ended = error.errno or 0, True
            return found
        if not data and not extra:
            found.ended = True
            return found
        found.read += 1
        found.words_left -= 1
        said_by = _credentials(extra)
        if flags & socket.MSG_TRUNC or said_by is None or not may_be_hint(data):
            found.words_left -= bad
            found.malformed += 1
            found.bad_size = len(data)
        else:
            key = (said_by, data[ABOUT])
            found.superseded += latest.pop(key, None) is not None
            latest[key] = data
    if found.words_left >= 0:
        found.words = [(said_by, data) for (said_by, _), data in latest.items()]
    return found


class LibraryDrain:
    """In C. One thread uses it."""

    def __init__(self, library: Library) -> None:
        """Makes room for `MOST` messages; only what is used of it is ever touched."""
        self._call = library.drain
        self._found = CDrained()
        self._found_at = ctypes.addressof(self._found)
        self._room = ctypes.create_string_buffer(MOST * WORD_SIZE)
        self._room_at = ctypes.addressof(self._room)
        self._view = memoryview(self._room).cast("B")

    def __call__(self, line: socket.socket, most: int, words_left: float, bad: float) -> Drained:
        """As `drain`."""
        raw = self._found
        self._call(line.fileno(), min(most, MOST), words_left, bad, self._room_at, self._found_at)
        found = Drained(raw.words_left, [], raw.read)
        if raw.superseded or raw.malformed or raw.ended or raw.error:
            found.superseded, found.malformed, found.bad_size = raw.superseded, raw.malformed, raw.bad_size
            found.ended, found.error = bool(raw.ended), raw.error
        if found.ended or found.words_left < 0:
            return found
        view, words = self._view, found.words
        for at in range(0, raw.slots * WORD_SIZE, WORD_SIZE):
            size = _SIZE.unpack_from(view, at)[0]
            if size:
                start = at + _BEGINNING
                words.append((bytes(view[at + _SIZE.size : start]), bytes(view[start : start + size])))
        return found


def _credentials(extra: list[tuple[int, int, bytes]]) -> bytes | None:
    """The kernel's word on who sent it; None where it is not said. Files that came along are closed."""
    found = None
    for level, kind, data in extra:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_CREDENTIALS and len(data) >= CREDENTIALS.size:
            found = data if int.from_bytes(data[:4], sys.byteorder, signed=True) > 0 else None
        elif kind == socket.SCM_RIGHTS:
            sent = array.array("i")
            sent.frombytes(data[: len(data) - len(data) % sent.itemsize])
            for descriptor in sent:
                os.close(descriptor)
    return found
