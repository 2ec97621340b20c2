"""What looks in C: the library, its structures, and whether this process may use it.

It makes looks cheap and is never needed: without a compiler, or where its file may not be mapped, Python does the same.
"""

from __future__ import annotations

import ctypes
import os
import stat
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Final

from npuops.errors import NpuopsError, StorageError
from npuops.hostsched.c_source import CSource

VARIABLE: Final = "NPUOPS_HOSTSCHED_READER"
"""Set to `python`, an agent looks without the library."""
SOURCE: Final = CSource("npuops.hostsched", "look.so", ("look.c", "hint_drain.c"), ("-shared", "-fPIC"))
SAME, CHANGED, GONE, FAILED = range(4)
"""What became of a row."""
LOAD, TIMES, PRESSURE = 1, 2, 4
"""Files of the host that told something."""
_I32, _I64, _TEXT = ctypes.c_int32, ctypes.c_int64, ctypes.c_char_p


class CHabits(ctypes.Structure):
    """How often what is looked at (`task_counters`)."""

    _fields_ = tuple(
        (name, _I64)
        for name in ("state_us", "sure_us", "short_ns", "usual", "idle_us", "idle_every_us", "idle_state_us")
    )


class CRow(ctypes.Structure):
    """One task: its files, and what was seen of it."""

    _fields_ = (
        ("runs_path", _TEXT),
        ("status_path", _TEXT),
        ("runs_fd", _I32),
        ("status_fd", _I32),
        ("error", _I32),
        ("raw_size", _I32),
        ("raw", ctypes.c_ubyte * 96),
        ("counters", _I64 * 5),
        *((name, _I64) for name in ("booked_ns", "asked_us", "changed_us", "next_us", "waiting_since_us", "usual")),
        ("sure_turns", _I64),
        ("sure_left", _I64),
        ("waits", _I32),
        ("unused", _I32),
    )


class CHost(ctypes.Structure):
    """The machine."""

    _fields_ = tuple((name, _I64) for name in ("runnable", "newest", "busy_ticks", "steal_ticks", "pressure_us"))


class CDrained(ctypes.Structure):
    """What became of a connection."""

    _fields_ = (
        ("words_left", ctypes.c_double),
        *((name, _I32) for name in ("read", "slots", "superseded", "malformed", "bad_size", "ended", "error")),
    )


WORD_SIZE: Final = 272
"""Of a message as the library keeps it: its length (int32; 0: superseded), 12 bytes of credentials, 256 of it."""
_loads: Final = count()


class Library:
    """The functions, all with addresses as numbers: nothing is made or checked at a call."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Raises AttributeError if it is another library."""
        address = ctypes.c_void_p
        self.look = library.npuops_look
        self.look.argtypes = (address, address, _I64, _I64, address, address)
        self.host = library.npuops_host
        self.host.argtypes = (_I32, _I32, _I32, address)
        self.drain = library.npuops_drain
        self.drain.argtypes = (_I32, _I32, ctypes.c_double, ctypes.c_double, address, address)
        self.drain.restype = None


@dataclass(frozen=True, slots=True)
class Reader:
    """Who looks.

    Attributes:
        library: None: Python does.
        words: why, for people.
        wished: somebody asked for it.
    """

    library: Library | None
    words: str
    wished: bool = False


def usual_reader() -> Reader:
    """The library where that is possible and nobody wants it otherwise (`VARIABLE`); compiled if it never was."""
    if os.environ.get(VARIABLE) == "python":
        return Reader(None, f"Python, because ${VARIABLE} says so", wished=True)
    return _compiled_once()


def reader_in(folder: Path | None = None) -> Reader:
    """As `usual_reader`, compiled into this folder; None: npuops' cache."""
    try:
        path = SOURCE.compiled(folder)
        library = load(path)
    except NpuopsError as error:
        return Reader(None, f"Python: {error.message}")
    return Reader(library, f"C, {path}")


def load(path: Path) -> Library:
    """Map a library into this process, which may be root's: what others may have written is not let in.

    Raises:
        StorageError: it is not this user's own (nor root's), others may write it, or it cannot be mapped.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise StorageError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in {0, os.geteuid()} or found.st_mode & 0o022:
            raise StorageError(
                f"{path} may be somebody else's work: it is not used",
                advice="remove it; it has to be this user's own file, writable by nobody else",
            )
        # By the descriptor: this very file was judged, whatever its name leads to by now. The linker knows what it
        # mapped by name, and descriptors have the same ones again and again: so each name is spelled another way.
        return Library(ctypes.CDLL(f"/proc/self/fd/{'./' * next(_loads)}{descriptor}"))
    except (OSError, AttributeError) as error:
        raise StorageError(f"{path} cannot be mapped: {error}") from error
    finally:
        os.close(descriptor)


@cache
def _compiled_once() -> Reader:
    return reader_in()
