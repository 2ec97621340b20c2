"""A folder against its manifest: every file there, no other one, and every byte as it was written."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from npuops.artifacts.disk import hash_file, read_small, storage_errors
from npuops.artifacts.encoding import GET_AGAIN, MANIFEST_LIMIT_BYTES, decode_manifest
from npuops.artifacts.manifest import MANIFEST_NAME, SIGNATURE_NAME, Artifact, Manifest
from npuops.artifacts.signature import signers
from npuops.errors import IntegrityError, UsageError


def verify_folder(root: Path) -> Artifact:
    """Verify everything: manifest, names, sizes, digests, and that a signature, if there is one, is whole.

    Whose signature it is does not matter here; `npuops.artifacts.signature.enforce` judges that.

    Raises:
        UsageError: there is no such folder.
        IntegrityError: names the file that is missing, damaged, unlisted, or not a regular file.
        IncompatibleArtifactError: another version of the format.
        SignatureError: the signature is damaged or belongs to another artifact.
        StorageError: a file cannot be read.
    """
    path = root / MANIFEST_NAME
    with storage_errors("read", root):
        there, begun = root.is_dir(), path.exists()
    if not there:
        raise UsageError(f"there is no artifact at {root}", advice="give the folder or the .npuart file of a build")
    if not begun:
        raise IntegrityError(
            f"{root} has no {MANIFEST_NAME}: it is no artifact, or a build did not end", advice=GET_AGAIN
        )
    manifest = decode_manifest(read_small(path, limit_bytes=MANIFEST_LIMIT_BYTES), where=str(path))
    check_listing(root, manifest, extra=frozenset({MANIFEST_NAME, SIGNATURE_NAME}))
    for record in manifest.files:
        try:
            sha256, _ = hash_file(root / record.name, wanted_bytes=record.bytes)
        except IntegrityError as error:
            raise IntegrityError(error.message, advice=GET_AGAIN) from error
        if sha256 != record.sha256:
            raise IntegrityError(f"{root / record.name} differs from its digest in the manifest", advice=GET_AGAIN)
    artifact = Artifact(root=root, manifest=manifest)
    signers(artifact)
    return artifact


def check_listing(root: Path, manifest: Manifest, *, extra: frozenset[str]) -> None:
    """The folder must hold the listed files, perhaps those in `extra`, and nothing else, not even an empty folder.

    Raises:
        IntegrityError: missing, unlisted, or neither a file nor a folder.
    """
    listed = {record.name for record in manifest.files}
    folders = {parent.as_posix() for name in listed for parent in PurePosixPath(name).parents}
    found = _walk(root, folders)
    if missing := sorted(listed - found):
        raise IntegrityError(f"{root}: {missing[0]!r} is missing", advice=GET_AGAIN)
    if unlisted := sorted(found - listed - extra):
        raise IntegrityError(
            f"{root}: {unlisted[0]!r} is not in the manifest", advice="take it away, if you put it there"
        )


def _walk(root: Path, folders: set[str]) -> set[str]:
    names: set[str] = set()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with storage_errors("list", root / folder), os.scandir(root / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and name not in folders):
                    names.add(name)
                elif stat.S_ISDIR(mode):
                    waiting.append(name)
                else:
                    raise IntegrityError(f"{root}: {name!r} is a link or a special file", advice=GET_AGAIN)
    return names
