"""One lock per key, across processes: the second to ask waits instead of doing the same work again."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from npuops.artifacts.disk import storage_errors
from npuops.clock import Clock
from npuops.errors import StorageError
from npuops.events import Observer, StepStarted

_POLL_US: Final = 50_000


@contextmanager
def held(path: Path, *, timeout_s: float, clock: Clock, observe: Observer) -> Iterator[None]:
    """Hold the lock file `path` during the block. It vanishes afterwards; the lock of a killed process is free.

    Args:
        path: in a folder that exists.
        timeout_s: how long to wait for another holder.
        clock: what the waiting goes by.
        observe: is told once that we wait, and for whom.

    Raises:
        StorageError: it is still held at the end of that time, or the file cannot be made.
    """
    deadline = clock.now_us() + round(timeout_s * 1e6)
    told = False
    while (descriptor := try_lock(path)) is None:
        holder = _holder(path)
        if not told:
            observe(StepStarted(step="cache", detail=f"waiting for {holder}, which works on the same thing"))
            told = True
        now_us = clock.now_us()
        if now_us >= deadline:
            raise StorageError(
                f"{holder} has held {path} for longer than {timeout_s:g} s",
                advice="wait for it, or end it if it hangs: the lock is free as soon as its process is gone",
            )
        clock.sleep_until(min(now_us + _POLL_US, deadline))
    try:
        yield
    finally:
        release(path, descriptor)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until nobody else is in a folder by this function, for changes that take milliseconds.

    Raises:
        StorageError: the folder cannot be opened.
    """
    with storage_errors("lock", folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with storage_errors("lock", folder):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """The descriptor of the lock, or None while someone else holds it.

    Raises:
        StorageError: the file cannot be made.
    """
    with storage_errors("lock", path):
        # Never through a link: in a folder that is open to all it may be a trap, and we cut what is at its end.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, descriptor):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, b"%d" % os.getpid())
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        # The holder before us removed the file after we opened it: our lock is on a file that nobody else sees.
        os.close(descriptor)
        return None


def release(path: Path, descriptor: int) -> None:
    """Remove the file and free the lock, in this order: see `try_lock`."""
    path.unlink(missing_ok=True)
    fcntl.flock(descriptor, fcntl.LOCK_UN)  # not only by closing: a forked child may hold a copy of the descriptor
    os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        pid = path.read_text(encoding="ascii")
    except FileNotFoundError:
        pid = ""
    return f"process {pid}" if pid else "another process"
