"""A folder for one piece of work, which does not outlive its maker for long, however that ends.

Its maker holds a lock on it (`flock`: the kernel lets go of it when a process ends, by SIGKILL too). Whoever
makes the next folder removes those that nobody holds any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PREFIX: Final = "npuops-call-"

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder in the place for temporary files, which only this user can read.

    Raises:
        OSError: none can be made.
    """
    _remove_forsaken(tempfile.gettempdir())
    folder, lock = _make()
    owner = os.getpid()
    try:
        yield folder
    finally:
        if os.getpid() == owner:  # a fork that ends cleans up as its parent would, and must leave this alone
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _make() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            lock = os.open(folder, _FOLDER)
        except FileNotFoundError:  # another process took it for forsaken: it was not locked yet
            continue
        with contextlib.suppress(OSError):  # where folders cannot be locked, nobody can lock it to remove it either
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return folder, lock
        os.close(lock)


def _remove_forsaken(place: str) -> None:
    """Those of this user that nobody holds."""
    for name in os.listdir(place):  # noqa: PTH208 - a Path for each of a full /tmp would be for nothing
        if name.startswith(PREFIX):
            with contextlib.suppress(OSError):  # it is somebody else's, or gone, or in use
                _remove_if_forsaken(Path(place, name))


def _remove_if_forsaken(folder: Path) -> None:
    lock = os.open(folder, _FOLDER)
    try:
        if os.fstat(lock).st_uid == os.getuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
