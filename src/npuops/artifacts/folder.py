"""Write an artifact, and open one: nothing is handed out before every byte of it was verified."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from npuops.artifacts.bundle import is_bundle, naming, unpack
from npuops.artifacts.disk import hash_file, storage_errors, write_durably
from npuops.artifacts.encoding import canonical_json, check_names, manifest_digest
from npuops.artifacts.manifest import MANIFEST_NAME, SIGNATURE_NAME, Artifact, FileRecord, Manifest
from npuops.artifacts.signature import TrustPolicy, enforce
from npuops.artifacts.verification import check_listing, verify_folder
from npuops.errors import UsageError
from npuops.private_folder import private_folder

_SCRATCH = f".{MANIFEST_NAME}.part"


def write_artifact(folder: Path, manifest: Manifest) -> Artifact:
    """Seal a folder: fill in sizes and digests of the listed files, and write the manifest, all durably.

    Args:
        folder: holds the listed files and nothing else. An older manifest is replaced.
        manifest: `sha256` and `bytes` of its files, and `digest`, are filled in here.

    Returns:
        The artifact with the manifest as it was written.

    Raises:
        IntegrityError: a listed file is missing or special, or there is an unlisted one.
        ArtifactError: a value that JSON cannot hold.
        UsageError: the folder is signed already.
        StorageError: it cannot be written; an older manifest is still there.
    """
    if os.path.lexists(folder / SIGNATURE_NAME):
        raise UsageError(
            f"{folder} is signed; a new manifest would make the signature void", advice=f"remove {SIGNATURE_NAME} first"
        )
    check_names(manifest, where=str(folder))
    check_listing(folder, manifest, extra=frozenset({MANIFEST_NAME, _SCRATCH}))
    sealed = replace(manifest, files=tuple(_sealed(folder, record) for record in manifest.files), digest="")
    sealed = replace(sealed, digest=manifest_digest(sealed))
    write_durably(folder / MANIFEST_NAME, canonical_json(sealed), scratch=folder / _SCRATCH)
    return Artifact(root=folder, manifest=sealed)


def open_artifact(path: Path, *, require: TrustPolicy | None = None) -> Artifact:
    """Verify an artifact, every byte of it, and hand it out.

    Args:
        path: a folder, or a `.npuart` bundle. A bundle is unpacked into a private folder that is removed when this
            process ends; who wants it removed earlier uses `opened`.
        require: whose signature it needs. A signature that is there must be whole in any case.

    Raises:
        UsageError: there is nothing at that path.
        IntegrityError: names the file that is missing, damaged, or not in the manifest.
        IncompatibleArtifactError: another version of the format.
        SignatureError: the signature is damaged, or not what `require` wants.
        StorageError: it cannot be read (or unpacked).
    """
    if not is_bundle(path):
        return _trusted(verify_folder(path), require)
    with storage_errors("unpack", path, need_bytes=path.stat().st_size):
        stack = ExitStack()
        scratch = stack.enter_context(private_folder())
    atexit.register(stack.close)
    return _unpacked(path, scratch / "artifact", require)


@contextmanager
def opened(path: Path, *, require: TrustPolicy | None = None) -> Iterator[Artifact]:
    """Like `open_artifact`, for a `with` block: an unpacked bundle is removed at its end.

    Raises:
        NpuopsError: as `open_artifact`.
    """
    if not is_bundle(path):
        yield open_artifact(path, require=require)
        return
    with ExitStack() as stack:
        with storage_errors("unpack", path, need_bytes=path.stat().st_size):
            scratch = stack.enter_context(private_folder())
        yield _unpacked(path, scratch / "artifact", require)


def _unpacked(bundle: Path, folder: Path, require: TrustPolicy | None) -> Artifact:
    artifact = unpack(bundle, folder)
    with naming(bundle, folder):
        return _trusted(artifact, require)


def _trusted(artifact: Artifact, require: TrustPolicy | None) -> Artifact:
    if require is not None:
        enforce(artifact, require)
    return artifact


def _sealed(folder: Path, record: FileRecord) -> FileRecord:
    sha256, size = hash_file(folder / record.name, sync=True)
    return replace(record, sha256=sha256, bytes=size)
