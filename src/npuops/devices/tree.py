"""Files of a machine below a root, read without trust.

The root is `/`, a copy of a machine's tree, or the tree that a virtual NPU writes. Nothing here raises or waits:
a file that is unreadable, endless, a pipe, a circle of links, or gone since it was listed is `Absent` with the reason.
"""

from __future__ import annotations

import errno
import fcntl
import fnmatch
import os
import re
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from npuops.devices.quantities import Absent
from npuops.errors import OptionError

TEXT_LIMIT: Final = 8192
"""A sysfs attribute has at most a page (4096 bytes)."""

_WORDS: Final = {
    errno.EACCES: "permission denied; root may read it",
    errno.EPERM: "permission denied; root may read it",
    errno.EOPNOTSUPP: "this platform has no value (EOPNOTSUPP)",
    errno.ENODATA: "no value now (ENODATA)",
    errno.ENODEV: "the device is gone (ENODEV)",
    errno.ENXIO: "the device is gone (ENXIO)",
    errno.ELOOP: "a circle of links",
}
_T = TypeVar("_T")
_DIGITS: Final = re.compile(r"([0-9]+)")
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e\xa0-\ufffc]")


class Tree:
    """A root with its `sys`, `proc` and `dev`; a root without `sys` is itself shaped like /sys."""

    def __init__(self, root: Path) -> None:
        """Open the root.

        Raises:
            OptionError: it is not a folder.
        """
        if not _is_folder(root):
            raise OptionError(f"{root} is not a folder", advice="--root takes a folder shaped like / or like /sys")
        self.root = Path(os.path.realpath(root))
        whole = _is_folder(self.root / "sys")
        self.sys = self.root / "sys" if whole else self.root
        self.proc = self.root / "proc"
        self.dev = self.root / "dev"

    def text(self, path: Path) -> str | Absent:
        """What the file says, without the white space around it."""
        data = self.data(path, TEXT_LIMIT)
        return data if isinstance(data, Absent) else data.decode("utf-8", "replace").strip()

    def words(self, path: Path, limit: int = 120) -> str | None:
        """One line that is safe to show, or None where the file gives none."""
        text = self.text(path)
        if isinstance(text, Absent):
            return None
        return _UNPRINTABLE.sub(" ", text)[:limit].strip() or None

    def data(self, path: Path, limit: int) -> bytes | Absent:
        """The whole file, if it has at most `limit` bytes."""
        return self._opened(path, partial(_read, limit=limit))

    def is_locked(self, path: Path) -> bool | Absent:
        """Whether a process holds the file by flock."""
        return self._opened(path, _is_locked)

    def _opened(self, path: Path, use: Callable[[int], _T]) -> _T | Absent:
        try:
            real = Path(os.path.realpath(path))
            if not real.is_relative_to(self.root):
                return Absent("the link leads outside the root")
            if not stat.S_ISREG(real.stat().st_mode):
                return Absent("not a regular file")
            descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                return use(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            words = _WORDS.get(error.errno or 0, os.strerror(error.errno or 0))
            return Absent(words, missing=error.errno in {errno.ENOENT, errno.ENOTDIR})

    def names(self, folder: Path, pattern: str = "*") -> tuple[str, ...]:
        """What the folder holds, `accel2` before `accel10`; nothing where it cannot be listed."""
        try:
            names = [path.name for path in folder.iterdir() if path.name.isprintable()]
        except OSError:
            return ()
        found = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        return tuple(sorted(found, key=lambda name: [(len(part), part) for part in _DIGITS.split(name)]))

    def matches(self, folder: Path, path: str) -> tuple[Path, ...]:
        """The files that a relative path with `*` in its parts means; without `*` the one path, there or not."""
        found: tuple[Path, ...] = (folder,)
        for part in path.split("/"):
            if "*" in part:
                found = tuple(each / name for each in found for name in self.names(each, part))
            else:
                found = tuple(each / part for each in found)
        return found

    def exists(self, path: Path) -> bool:
        """Whether something is there that this user can see."""
        return _status(path) is not None

    def link(self, path: Path) -> str:
        """Where a link says it leads, not followed; empty for what is no link."""
        try:
            return str(path.readlink())
        except OSError:
            return ""

    def linked_name(self, path: Path) -> str | None:
        """The name of what a link leads to: a `driver` link names the driver. None for what is no link."""
        return Path(os.path.realpath(path)).name if self.link(path) else None

    def shown(self, path: Path) -> str:
        """The path as it is below the root, with `/` in front."""
        return "/" + os.path.relpath(path, self.root)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _is_folder(path: Path) -> bool:
    status = _status(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _is_locked(descriptor: int) -> bool:
    """Not waited for, and given back when the file is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _read(descriptor: int, limit: int) -> bytes | Absent:
    data = b""
    while piece := os.read(descriptor, limit + 1 - len(data)):
        data += piece
        if len(data) > limit:
            return Absent(f"larger than {limit} bytes")
    return data
