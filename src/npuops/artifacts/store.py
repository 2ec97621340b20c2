"""The store of built artifacts: the compile cache. Entries appear whole or not at all, and are verified on the way out.

On disk, below one root (`DirectoryStore`):

    entries/<sha256 of the key>/entry.json    key and manifest digest
                               /artifact/     the artifact's folder
    incoming/<token>/                         being written; renamed into `entries` when it is whole
    quarantine/<name>-<token>/                entries that were damaged, for a look
    locks/                                    of keys, and of what is in `incoming`

Whoever builds holds `lock(key)` around `get`, the build, and `put`: then the same thing is not compiled twice at the
same time, and `prune` does not take the entry away while it is copied.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, Protocol

from npuops.artifacts import locks
from npuops.artifacts.disk import storage_errors
from npuops.artifacts.entry import ARTIFACT, Entry, describe, fill, folder_name, mark_used, open_entry
from npuops.artifacts.manifest import Artifact, Manifest
from npuops.artifacts.verification import verify_folder
from npuops.clock import Clock, SystemClock
from npuops.errors import ArtifactError, StorageError, UsageError
from npuops.events import Observer, Warned, ignore

CACHE_VARIABLE: Final = "NPUOPS_CACHE"
LOCK_TIMEOUT_S: Final = 3600.0
"""A compilation ends earlier, by its own time limit."""


class Store(Protocol):
    """Keeps artifacts by key."""

    def put(self, key: str, folder: Path) -> Artifact:
        """Keep a copy of a whole artifact; if there is one by that key already, that one stays and is returned.

        Raises:
            ArtifactError: the folder is not a whole artifact.
            StorageError: there is no room, or no permission; nothing was changed.
        """
        ...

    def get(self, key: str) -> Artifact | None:
        """The verified artifact, or None. It is the store's own: copy it, do not change it."""
        ...

    def list(self) -> tuple[Entry, ...]:
        """All entries, last used first."""
        ...

    def lock(self, key: str, *, timeout_s: float = LOCK_TIMEOUT_S) -> AbstractContextManager[None]:
        """Only one holder per key at a time; the others wait.

        Raises:
            StorageError: on entering, when the time is over.
        """
        ...


def default_root() -> Path:
    """`$NPUOPS_CACHE`, else `npuops` in the cache folder of the XDG base directories.

    Raises:
        StorageError: no home folder is known.
    """
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own)
    # The specification wants relative values ignored.
    if (xdg := Path(os.environ.get("XDG_CACHE_HOME", ""))).is_absolute():
        return xdg / "npuops"
    try:
        return Path.home() / ".cache" / "npuops"
    except RuntimeError as error:
        raise StorageError("no home folder is known", advice=f"name a cache folder in ${CACHE_VARIABLE}") from error


class DirectoryStore:
    """A store in a folder, safe for any number of processes on this machine."""

    def __init__(self, root: Path | None = None, *, clock: Clock | None = None, observe: Observer = ignore) -> None:
        """Use (and make, when first needed) the folder `root`; by default `default_root()`."""
        self.root = root if root is not None else default_root()
        self._clock = clock if clock is not None else SystemClock()
        self._observe = observe

    def put(self, key: str, folder: Path) -> Artifact:
        """As `Store.put`. What a killed process left half-written is swept away on the way."""
        whole = verify_folder(folder)
        need = sum(record.bytes for record in whole.manifest.files)
        self._sweep()
        with storage_errors("store in", self.root, need_bytes=need), self._incoming() as scratch:
            fill(scratch, key, whole)
            return self._publish(key, scratch, whole.manifest)

    def get(self, key: str) -> Artifact | None:
        """As `Store.get`. A damaged entry is set aside, reported as a `Warned` event, and is a miss."""
        place = self._place(key)
        if not self._has(place):
            return None
        try:
            artifact = open_entry(place, key)
        except (ArtifactError, UsageError, StorageError) as error:
            if not self._has(place):
                return None  # `prune` of another process took it away under our hands: an ordinary miss
            if isinstance(error, StorageError):
                raise
            self._set_aside(place, error.message)
            return None
        self._touch(place)
        return artifact

    def list(self) -> tuple[Entry, ...]:
        """As `Store.list`; a damaged entry has an empty key and digest."""
        entries = [describe(place) for place in self._paths("entries")]
        return tuple(sorted((one for one in entries if one), key=lambda one: one.used_ns, reverse=True))

    @contextmanager
    def lock(self, key: str, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """As `Store.lock`, across processes. The lock of a killed process is free."""
        path = self._folder("locks") / f"{folder_name(key)}.lock"
        with locks.held(path, timeout_s=timeout_s, clock=self._clock, observe=self._observe):
            yield

    def prune(self, max_bytes: int) -> tuple[Entry, ...]:
        """Remove the least recently used entries until the rest fits, and all that was set aside.

        Entries whose lock is held stay.

        Returns:
            What was removed.

        Raises:
            StorageError: something cannot be removed.
        """
        self._sweep()
        for damaged in self._paths("quarantine"):
            self._take_away(damaged)
        described = [(place, entry) for place in self._paths("entries") if (entry := describe(place))]
        total = sum(entry.bytes for _, entry in described)
        removed: list[Entry] = []
        for place, entry in sorted(described, key=lambda pair: pair[1].used_ns):
            if total > max_bytes and self._remove(place):
                total -= entry.bytes
                removed.append(entry)
        return tuple(removed)

    def _publish(self, key: str, scratch: Path, manifest: Manifest) -> Artifact:
        """First wins: where a whole entry is there already, it is returned and ours is dropped."""
        place = self._place(key)
        self._folder("entries")
        while True:
            try:
                scratch.rename(place)
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                if (earlier := self.get(key)) is not None:
                    return earlier
                # It was damaged, and is set aside now, or another process took it away: the place is free.
            else:
                return Artifact(root=place / ARTIFACT, manifest=manifest)

    @contextmanager
    def _incoming(self) -> Iterator[Path]:
        """A private folder on the store's file system; its lock tells others that its owner lives."""
        token = uuid.uuid4().hex
        folder = self._folder("incoming") / token
        with locks.held(self._token_lock(token), timeout_s=0, clock=self._clock, observe=self._observe):
            folder.mkdir()
            try:
                yield folder
            finally:
                if folder.exists():
                    shutil.rmtree(folder)

    def _sweep(self) -> None:
        """Remove what processes left behind that are gone: their locks are free."""
        with storage_errors("sweep", self.root):
            for folder in self._paths("incoming"):
                self._folder("locks")
                path = self._token_lock(folder.name)
                if (descriptor := locks.try_lock(path)) is not None:
                    try:
                        if folder.exists():
                            shutil.rmtree(folder)
                    finally:
                        locks.release(path, descriptor)

    def _remove(self, place: Path) -> bool:
        """Not while somebody holds its lock."""
        path = self._folder("locks") / f"{place.name}.lock"
        descriptor = locks.try_lock(path)
        if descriptor is None:
            return False
        try:
            return self._take_away(place)
        finally:
            locks.release(path, descriptor)

    def _take_away(self, folder: Path) -> bool:
        """At once: a half-removed entry must not be seen as a damaged one. False if another process was faster."""
        with storage_errors("remove", folder), self._incoming() as scratch:
            try:
                folder.rename(scratch / "old")
            except FileNotFoundError:
                return False
        return True

    def _set_aside(self, place: Path, why: str) -> None:
        aside = self._folder("quarantine") / f"{place.name}-{uuid.uuid4().hex}"
        with storage_errors("set aside", place):
            try:
                place.rename(aside)
            except FileNotFoundError:
                return  # another process set it aside in the same moment
        advice = f"it is built again; what was found is in {aside}; if this repeats, check the disk"
        self._observe(Warned(step="cache", message=f"a stored artifact was damaged: {why}", advice=advice))

    def _touch(self, place: Path) -> None:
        try:
            mark_used(place)
        except OSError as error:  # a read-only cache serves well; only the order of use is not kept
            self._observe(Warned(step="cache", message=f"cannot note the use of {place}: {error.strerror}"))

    def _paths(self, name: str) -> tuple[Path, ...]:
        folder = self.root / name
        with storage_errors("list", folder):
            return tuple(folder.iterdir()) if folder.is_dir() else ()

    def _has(self, place: Path) -> bool:
        with storage_errors("look into", self.root):
            return place.is_dir()

    def _place(self, key: str) -> Path:
        return self.root / "entries" / folder_name(key)

    def _token_lock(self, token: str) -> Path:
        return self._folder("locks") / f"incoming-{token}.lock"

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        with storage_errors("make", folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder
