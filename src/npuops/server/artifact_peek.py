"""The manifest of an artifact that lies in a repository, and whether its files are all there, in full length."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from npuops.artifacts.bundle import is_bundle, peek
from npuops.artifacts.disk import read_small, storage_errors
from npuops.artifacts.encoding import MANIFEST_LIMIT_BYTES, decode_manifest
from npuops.artifacts.manifest import MANIFEST_NAME, SIGNATURE_NAME, Manifest
from npuops.errors import IntegrityError
from npuops.server.version_spec import FoundArtifact, Stamp

ADVICE = "if a copy goes on, it is loaded when it is whole; else copy it again"


class ManifestReader:
    """Reads manifests, and remembers them: a big one takes a second to decode, and a repository is polled."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Stamp, Manifest]] = {}
        self._found: dict[Path, FoundArtifact] = {}
        self._seen: set[Path] = set()

    def read(self, path: Path, *, name: str) -> FoundArtifact:
        """What can be said of an artifact without reading its files; the same object until one of them is touched.

        Args:
            path: its folder or `.npuart` file.
            name: how to call it.

        Raises:
            ArtifactError: no manifest, a damaged one, or files are missing, too short, or no files.
            StorageError: something cannot be read.
        """
        bundle = is_bundle(path)
        with storage_errors("read", path):
            if not bundle and not (path / MANIFEST_NAME).exists():
                raise IntegrityError(f"{path} has no {MANIFEST_NAME}", advice=ADVICE)
            own = (_stamp(path.resolve() if bundle else path / MANIFEST_NAME, MANIFEST_NAME),)
        manifest = self._manifest(path, own, bundle=bundle)
        stamp = own if bundle else (*own, *_files(path, manifest))
        found = self._found.get(path)
        if found is None or (found.stamp, found.name) != (stamp, name):
            found = self._found[path] = FoundArtifact(name=name, path=path, manifest=manifest, stamp=stamp)
        return found

    def forget_unseen(self) -> None:
        """Drop what was not read since the last call: it is gone."""
        self._known = {path: known for path, known in self._known.items() if path in self._seen}
        self._found = {path: found for path, found in self._found.items() if path in self._seen}
        self._seen.clear()

    def _manifest(self, path: Path, stamp: Stamp, *, bundle: bool) -> Manifest:
        self._seen.add(path)
        known = self._known.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        if bundle:
            manifest = peek(path)
        else:
            file = path / MANIFEST_NAME
            manifest = decode_manifest(read_small(file, limit_bytes=MANIFEST_LIMIT_BYTES), where=str(file))
        self._known[path] = (stamp, manifest)
        return manifest


def _files(folder: Path, manifest: Manifest) -> Iterator[tuple[str, int, int, int]]:
    if os.path.lexists(folder / SIGNATURE_NAME):
        yield _stamp(folder / SIGNATURE_NAME, SIGNATURE_NAME)
    for record in manifest.files:
        path = folder / record.name
        if not os.path.lexists(path):
            raise IntegrityError(f"{folder}: {record.name!r} is missing", advice=ADVICE)
        stamp = _stamp(path, record.name)
        if stamp[2] != record.bytes:
            raise IntegrityError(f"{path} has {stamp[2]} of {record.bytes} bytes", advice=ADVICE)
        yield stamp


def _stamp(path: Path, name: str) -> tuple[str, int, int, int]:
    with storage_errors("read", path):
        status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise IntegrityError(f"{path} is not a regular file", advice="links within an artifact are not followed")
    return name, status.st_ino, status.st_size, status.st_mtime_ns
