"""Where a build leaves its artifact: a folder or one `.npuart` file, the old one or the new one, never a half of it."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from npuops.artifacts import locks
from npuops.artifacts.bundle import SUFFIX, pack
from npuops.artifacts.disk import storage_errors
from npuops.artifacts.folder import open_artifact
from npuops.artifacts.manifest import MANIFEST_NAME, Artifact
from npuops.clock import SystemClock
from npuops.errors import UsageError
from npuops.events import ignore

_WORKSPACE: Final = "npuops-build-"
_PUBLISHING_S: Final = 600.0
"""How long another build may take to copy its artifact to the same place."""


def refuse_occupied(out: Path) -> None:
    """Call it before the work. What is not an artifact is somebody's data; it is never replaced.

    Raises:
        UsageError: `out` is taken by something else, or cannot be written.
        StorageError: it cannot be looked at.
    """
    with storage_errors("look at", out):
        there = os.path.lexists(out)
        if there and not (_is_bundle(out) if out.suffix == SUFFIX else (out / MANIFEST_NAME).is_file()):
            raise UsageError(f"{out} exists and is no artifact", advice="choose another path with -o, or remove it")
        folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {out}: {folder} is no folder that can be written to")


def publish(artifact: Artifact, out: Path) -> Artifact:
    """Bring a finished artifact to its place.

    Args:
        artifact: in the workspace of the build.
        out: a folder, or a file if its suffix is `.npuart`.

    Returns:
        The artifact at its place; of a bundle, what was unpacked and verified from it again.

    Raises:
        StorageError: what was there before is still there.
    """
    need = sum(record.bytes for record in artifact.manifest.files)
    with storage_errors("write", out, need_bytes=need):
        out.parent.mkdir(parents=True, exist_ok=True)
    place = out.resolve()  # of a link, what it leads to is replaced
    if out.suffix == SUFFIX:
        pack(artifact.root, place, overwrite=True)
        return open_artifact(out)
    lock = place.with_name(f".{place.name}.lock")
    with (
        locks.held(lock, timeout_s=_PUBLISHING_S, clock=SystemClock(), observe=ignore),
        storage_errors("write", out, need_bytes=need),
    ):
        _publish_folder(artifact.root, place)
    return Artifact(out, artifact.manifest)


@contextmanager
def workspace() -> Iterator[Path]:
    """A private folder that is gone afterwards, whatever happened; those of killed builds are swept on the way."""
    place = Path(tempfile.gettempdir())
    with storage_errors("sweep", place):
        for left in place.glob(f"{_WORKSPACE}*/"):
            _remove_abandoned(left)
    folder = place / f"{_WORKSPACE}{uuid.uuid4().hex}"
    with locks.held(_lock_of(folder), timeout_s=0, clock=SystemClock(), observe=ignore):
        with storage_errors("make", folder):
            folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def copy_folder(folder: Path, to: Path) -> None:
    """Contents and structure, nothing of dates and owners.

    Raises:
        OSError: of the file that failed; `shutil.copytree` would hide its number in a list.
    """
    to.mkdir()
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            (to / path.relative_to(folder)).mkdir()
        else:
            shutil.copyfile(path, to / path.relative_to(folder))


def _remove_abandoned(folder: Path) -> None:
    """A free lock tells that the owner is gone; unlike a process number it does so for other containers too.

    What is another user's stays, also for root: Linux does not let us open the lock (fs.protected_regular).
    """
    if _is_ours(folder) and (descriptor := locks.try_lock(_lock_of(folder))) is not None:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            locks.release(_lock_of(folder), descriptor)


def _is_ours(folder: Path) -> bool:
    try:
        return folder.lstat().st_uid == os.geteuid()
    except FileNotFoundError:
        return False  # its build ended meanwhile


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _publish_folder(folder: Path, out: Path) -> None:
    """Copy beside `out` and rename. What is found there by these names was left by a build that was killed."""
    incoming, replaced = (out.with_name(f".{out.name}.{word}") for word in ("incoming", "replaced"))
    _settle(out, incoming, replaced)
    try:
        copy_folder(folder, incoming)
        if out.exists():
            out.rename(replaced)
        incoming.rename(out)
    finally:
        _settle(out, incoming, replaced)


def _settle(out: Path, incoming: Path, replaced: Path) -> None:
    """Whatever was interrupted: afterwards `out` is the new artifact or the old one, and nothing is beside it."""
    if replaced.exists() and not out.exists():
        replaced.rename(out)
    for left in (incoming, replaced):
        if left.exists():
            shutil.rmtree(left)


def _is_bundle(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()[:1] == [MANIFEST_NAME]
    except (zipfile.BadZipFile, IsADirectoryError):
        return False
