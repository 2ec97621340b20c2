"""Files that a verb writes for its user: whole or not at all, and never inside an artifact."""

from __future__ import annotations

import os
from pathlib import Path

from npuops.artifacts.disk import storage_errors, write_durably
from npuops.errors import UsageError


def refuse_output(path: Path, artifact: Path) -> None:
    """Call it before the work, so that no result is lost for want of a place.

    A file more would make the artifact invalid, and writing over it would destroy it.

    Raises:
        UsageError: `path` is the artifact or lies in it, is a folder, or its folder is missing or not writable.
    """
    if path.resolve().is_relative_to(artifact.resolve()):
        raise UsageError(
            f"{path} lies inside the artifact, which would not verify any more", advice="choose a path outside of it"
        )
    if path.is_dir():
        raise UsageError(f"{path} is a folder", advice="name a file in it")
    _refuse_folder(path, path.resolve().parent)


def refuse_place(path: Path) -> None:
    """The same for a file that is renamed into its place, in folders that may still have to be made.

    Raises:
        UsageError: `path` is a folder or a device, which a rename would destroy, or nothing can be written there.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no regular file", advice="choose another path")
    _refuse_folder(path, next(parent for parent in path.absolute().parents if parent.exists()))


def _refuse_folder(path: Path, folder: Path) -> None:
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"cannot write {path}: {folder} is no folder that can be written to", advice="choose another path"
        )


def write_output(path: Path, data: bytes) -> None:
    """Replace the file at once; a device or a pipe is written to as it is.

    Raises:
        StorageError: the old file, if there was one, is still there.
    """
    if path.exists() and not path.is_file():
        with storage_errors("write", path):
            path.write_bytes(data)
        return
    target = path.resolve()
    write_durably(target, data, scratch=target.with_name(f".{target.name}.{os.getpid()}"))
