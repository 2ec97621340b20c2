"""One entry of the store on disk: a folder that binds an artifact to its key, and remembers when it was used."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from npuops.artifacts.disk import read_small
from npuops.artifacts.manifest import MANIFEST_NAME, SIGNATURE_NAME, Artifact
from npuops.artifacts.verification import verify_folder
from npuops.errors import IntegrityError, StorageError

ARTIFACT: Final = "artifact"
"""The name of the artifact's folder in an entry."""

_LABEL: Final = "entry.json"
_LABEL_LIMIT_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One stored artifact, not verified yet."""

    key: str
    digest: str
    """Of its manifest."""
    bytes: int
    used_ns: int
    """When it was last put or got, in nanoseconds since 1970."""
    target: str = ""
    model: str = ""
    """The model's file name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Label:
    """What `entry.json` holds: with it a folder that was swapped for another is noticed."""

    key: str
    digest: str
    target: str = ""
    model: str = ""


def folder_name(key: str) -> str:
    """A key may be any text; a folder's name may not."""
    return hashlib.sha256(key.encode()).hexdigest()


def fill(place: Path, key: str, whole: Artifact) -> None:
    """Copy an artifact into a new entry, and verify the copy.

    Raises:
        OSError: there is no room, or no permission.
        ArtifactError: the copy is not what was to be copied.
    """
    # No fsync: what a power cut damages is noticed when it is opened, and built again.
    for name in (MANIFEST_NAME, SIGNATURE_NAME, *(record.name for record in whole.manifest.files)):
        source, copy = whole.root / name, place / ARTIFACT / name
        if name == SIGNATURE_NAME and not source.exists():
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    manifest = whole.manifest
    label = _Label(key=key, digest=manifest.digest, target=manifest.target, model=manifest.model.name)
    (place / _LABEL).write_bytes(msgspec.json.encode(label))
    open_entry(place, key)
    mark_used(place)


def open_entry(place: Path, key: str) -> Artifact:
    """The verified artifact of an entry.

    Raises:
        ArtifactError: damaged, or the entry of another key.
        StorageError: it cannot be read.
    """
    label = _read_label(place)
    artifact = verify_folder(place / ARTIFACT)
    if (label.key, label.digest) != (key, artifact.manifest.digest):
        raise IntegrityError(f"{place} is the entry of another key")
    return artifact


def mark_used(place: Path) -> None:
    """The order of use is in the label's time; from the clock, for the kernel's own goes in steps of milliseconds."""
    now_ns = time.time_ns()
    os.utime(place / _LABEL, ns=(now_ns, now_ns))


def describe(place: Path) -> Entry | None:
    """What can be said without verifying: no key and digest for a damaged entry, None for one that is gone."""
    try:
        label = _read_label(place)
    except IntegrityError:
        label = _Label(key="", digest="")
    try:
        size = sum(path.lstat().st_size for path in place.rglob("*") if path.is_file())
        used_ns = (place / _LABEL if label.digest else place).stat().st_mtime_ns
    except FileNotFoundError:
        return None
    return Entry(
        key=label.key, digest=label.digest, bytes=size, used_ns=used_ns, target=label.target, model=label.model
    )


def _read_label(place: Path) -> _Label:
    try:
        data = read_small(place / _LABEL, limit_bytes=_LABEL_LIMIT_BYTES)
        return msgspec.json.decode(data, type=_Label)
    except (msgspec.DecodeError, UnicodeDecodeError, StorageError) as error:
        raise IntegrityError(f"{place / _LABEL} is damaged: {error}") from error
