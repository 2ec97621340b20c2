"""Files of /proc that are read again and again: kept open where that is possible, since opening costs most.

A kept descriptor of /proc/TID/… names one task for good: when that ends, it reads nothing (ESRCH), though the number
may be somebody else's by then.
"""

from __future__ import annotations

import errno
import os
import resource
from contextlib import suppress
from typing import Final

from npuops.hostsched.knobs import KnobError

FULL: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""No descriptor is left."""
_GONE: Final = frozenset({errno.ENOENT, errno.ESRCH})
_WHOLE: Final = 16_384
"""Bytes: in how many cgroups a container's task is, each by its path, takes more than a page."""
_SPARE: Final = 64
"""Descriptors of the limit that are left to the rest of the process."""


class Descriptors:
    """How many files may be kept open; beyond that, each read opens its file again."""

    def __init__(self, most: int | None = None) -> None:
        """`most` to keep; by default what the process may open, less some."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        everything = 4096 if limit == resource.RLIM_INFINITY else max(limit - _SPARE, 0)
        self._most = everything if most is None else most
        self._kept: set[KeptFile] = set()
        self.changes = 0
        """Moves whenever a file is kept or let go: whoever keeps numbers of descriptors looks again."""

    @property
    def has_room(self) -> bool:
        """One more may be kept."""
        return len(self._kept) < self._most

    @property
    def kept(self) -> int:
        """Open now."""
        return len(self._kept)

    def close(self) -> None:
        """All of them."""
        for file in list(self._kept):
            file.close()

    def keep(self, file: KeptFile) -> bool:
        """Whether this one may stay open."""
        if not self.has_room:
            return False
        self._kept.add(file)
        self.changes += 1
        return True

    def let_go(self, file: KeptFile) -> None:
        """It is closed."""
        self._kept.discard(file)
        self.changes += 1

    def make_room(self) -> bool:
        """The process has no descriptor left: keep half as many from now on. False if none was kept."""
        if not self._kept:
            return False
        self._most = len(self._kept) // 2
        for file in list(self._kept)[self._most :]:
            file.close()
        return True


class KeptFile:
    """One file."""

    __slots__ = ("_descriptors", "descriptor", "path")

    def __init__(self, path: str, descriptors: Descriptors) -> None:
        """Nothing is opened before the first read."""
        self.path = path
        self._descriptors = descriptors
        self.descriptor: int | None = None
        """While it is kept open; who reads very often may use it, and comes back here for whatever fails."""

    def read(self, most: int) -> bytes | None:
        """From its beginning; None when the file, or the task it is about, is gone.

        Raises:
            KnobError: no descriptor is left, or the kernel does not let us read.
        """
        if self.descriptor is not None:
            try:
                return os.pread(self.descriptor, most, 0)
            except OSError as error:
                self._close_if_gone(error)
                return None
        try:
            descriptor = self._open()
            if descriptor is None:
                return None
            if self._descriptors.keep(self):
                self.descriptor = descriptor
                return os.pread(descriptor, most, 0)
            try:
                return os.read(descriptor, most)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._close_if_gone(error)
            return None

    def hold(self) -> int | None:
        """Its descriptor, if it may be kept open; None as well when what it is about is gone.

        Raises:
            KnobError: as `read`.
        """
        if self.descriptor is None and self._descriptors.has_room:
            try:
                descriptor = self._open()
            except OSError as error:
                self._close_if_gone(error)
                return None
            if descriptor is not None and self._descriptors.keep(self):
                self.descriptor = descriptor
            elif descriptor is not None:  # to open it took the room of others, and what they may keep is less now
                os.close(descriptor)
        return self.descriptor

    def close(self) -> None:
        """Until the next read."""
        if self.descriptor is not None:
            with suppress(OSError):
                os.close(self.descriptor)
            self.descriptor = None
            self._descriptors.let_go(self)

    def _open(self) -> int | None:
        while True:
            try:
                return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                if error.errno in _GONE:
                    return None
                if error.errno in FULL and self._descriptors.make_room():
                    continue
                raise

    def _close_if_gone(self, error: OSError) -> None:
        self.close()
        if error.errno not in _GONE:
            raise unreadable(self.path, error) from error


def unreadable(path: str, error: OSError) -> KnobError:
    """What to tell of a file that cannot be read, and what to do about it."""
    advice = "raise the limit of open files (ulimit -n)" if error.errno in FULL else ""
    return KnobError(f"{path} cannot be read: {error.strerror}", advice=advice)


def read_whole(path: str) -> bytes:
    """A small file that is read once in a while; empty when it, or the task it is about, is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, _WHOLE)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _GONE:
            return b""
        raise KnobError(f"{path} cannot be read: {error.strerror}") from error
