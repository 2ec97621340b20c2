"""Files that are whole or absent: durable writes, hashing in a stream, and what a failing disk is called."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final

from npuops.errors import IntegrityError, StorageError
from npuops.units import format_bytes

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def storage_errors(action: str, path: Path, *, need_bytes: int | None = None) -> Iterator[None]:
    """Turn an `OSError` into a StorageError that says what was tried, and what is missing.

    Args:
        action: the verb, as in `cannot {action} {path}`.
        path: the file or folder concerned.
        need_bytes: how much was to be written, for a full disk.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise StorageError(f"cannot {action} {path}: {reason}{_need(path, need_bytes)}", advice=_FREE) from error
        culprit = f" ({error.filename})" if error.filename and str(error.filename) != str(path) else ""
        raise StorageError(
            f"cannot {action} {path}: {reason}{culprit}", advice="check the path, its owner and its permissions"
        ) from error


_FREE: Final = "free space there (or raise the limit on file sizes), or choose another place; nothing was left behind"


def _need(path: Path, need_bytes: int | None) -> str:
    existing = next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))
    free = format_bytes(shutil.disk_usage(existing).free)
    return f"; {free} free" if need_bytes is None else f"; {need_bytes} bytes are needed, {free} free"


def write_durably(path: Path, data: bytes, *, scratch: Path) -> None:
    """Replace the file `path` at once: whoever looks sees the old bytes or the new ones, also after a power cut.

    Args:
        path: the file to write.
        data: all of its bytes.
        scratch: a temporary name on the same file system; an interrupted call may leave it behind.

    Raises:
        StorageError: nothing was changed.
    """
    with storage_errors("write", path, need_bytes=len(data)), replacing(path, scratch) as file:
        file.write(data)


@contextmanager
def replacing(path: Path, scratch: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well, and vanishes when it does not."""
    try:
        scratch.unlink(missing_ok=True)  # of a killed process, or a link that somebody put there
        with scratch.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path, *, wanted_bytes: int | None = None, sync: bool = False) -> tuple[str, int]:
    """SHA-256 (hex) and size of a regular file, read in a stream.

    Args:
        path: never followed if it is a link.
        wanted_bytes: a file of another size is refused before it is read.
        sync: make its content durable too.

    Raises:
        IntegrityError: not a regular file, or of another size.
        StorageError: it cannot be read.
    """
    with storage_errors("read", path), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if wanted_bytes is not None and size != wanted_bytes:
            raise IntegrityError(f"{path} has {size} bytes, its manifest says {wanted_bytes}")
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest(), size


def read_small(path: Path, *, limit_bytes: int) -> bytes:
    """All bytes of a regular file that must not be larger than the limit.

    Raises:
        IntegrityError: not a regular file, or larger.
        StorageError: it cannot be read.
    """
    with storage_errors("read", path), open_regular(path) as file:
        # Not `read(limit)`: that would set aside memory for the limit, whatever the size.
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1) if size <= limit_bytes else b""
    if max(size, len(data)) > limit_bytes:
        raise IntegrityError(f"{path} is larger than {format_bytes(limit_bytes)}: it is not what its name says")
    return data


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading, but never a link, a pipe, a device or a folder."""
    try:
        # O_NONBLOCK: a named pipe in place of the file must not make us wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise IntegrityError(f"{path} is a link, not a file") from error
        raise
    file = open(descriptor, "rb")  # noqa: PTH123, SIM115 - only open() takes a descriptor; the caller closes it
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise IntegrityError(f"{path} is not a regular file")
    return file
