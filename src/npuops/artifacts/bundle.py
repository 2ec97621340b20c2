"""An artifact in a single file, `.npuart`: a ZIP with one possible form, so that every bit of it is verified.

Stored, not deflated: compiled graphs hardly shrink, deflate's output depends on the library that made it, and a stored
archive cannot be a bomb. The order is `manifest.json`, the signature if there is one, then the files by name; dates,
permissions and flags are constant, and sizes are always written in their 64-bit form. All bytes that are not content
are then a function of names, sizes and checksums, and `unpack` compares each of them.
Any ZIP tool can read it (APPNOTE.TXT 6.3, version 4.5).
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from npuops.artifacts import locks
from npuops.artifacts.disk import open_regular, replacing, storage_errors
from npuops.artifacts.encoding import GET_AGAIN, MANIFEST_LIMIT_BYTES, decode_manifest
from npuops.artifacts.manifest import MANIFEST_NAME, SIGNATURE_NAME, Artifact, Manifest
from npuops.artifacts.verification import verify_folder
from npuops.clock import SystemClock
from npuops.errors import ArtifactError, IntegrityError, UsageError
from npuops.events import ignore

SUFFIX: Final = ".npuart"

_LOCAL: Final = struct.Struct("<4s5H3L2H")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_END: Final = struct.Struct("<4s4H2LH")
_VERSION: Final = 45
_MADE_ON_UNIX: Final = 3 << 8 | _VERSION
_UTF8_NAMES: Final = 0x800
_DATE_1980: Final = 0x21
_MODE: Final = 0o100644 << 16
_IN_EXTRA: Final = 0xFFFFFFFF
_CHUNK: Final = 1 << 20
_SIGNATURE_LIMIT_BYTES: Final = 16 * 1024 * 1024
_PACKING_S: Final = 600.0
"""How long another process may take to write the same bundle."""


@dataclass(frozen=True, slots=True)
class _Member:
    name: bytes
    size: int
    crc: int
    offset: int

    @property
    def header(self) -> bytes:
        """What stands before the content."""
        extra = struct.pack("<HHQQ", 1, 16, self.size, self.size)
        fields = (_VERSION, _UTF8_NAMES, 0, 0, _DATE_1980, self.crc, _IN_EXTRA, _IN_EXTRA, len(self.name), len(extra))
        return _LOCAL.pack(b"PK\3\4", *fields) + self.name + extra

    @property
    def directory_entry(self) -> bytes:
        """Its line in the directory at the end."""
        extra = struct.pack("<HHQQQ", 1, 24, self.size, self.size, self.offset)
        fields = (_MADE_ON_UNIX, _VERSION, _UTF8_NAMES, 0, 0, _DATE_1980, self.crc, _IN_EXTRA, _IN_EXTRA)
        rest = (len(self.name), len(extra), 0, 0, 0, _MODE, _IN_EXTRA)
        return _CENTRAL.pack(b"PK\1\2", *fields, *rest) + self.name + extra


def is_bundle(path: Path) -> bool:
    """Whether it is a file, not a folder: what is in it is for `unpack` to judge."""
    with storage_errors("read", path):
        return path.is_file()


def pack(folder: Path, out: Path, *, overwrite: bool = False) -> Path:
    """Write a verified artifact folder into one file; the same folder gives the same bytes anywhere.

    Raises:
        ArtifactError: the folder is not a whole artifact.
        UsageError: `out` exists and `overwrite` is not set, or it lies in the folder itself.
        StorageError: it cannot be written; nothing was left behind.
    """
    artifact = verify_folder(folder)
    if os.path.lexists(out) and not overwrite:
        raise UsageError(f"{out} exists", advice="remove it, or choose another name")
    if out.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{out} lies in the artifact itself", advice="choose a place outside of it")
    names = _names(artifact.manifest, signed=os.path.lexists(folder / SIGNATURE_NAME))
    # One name for all, under a lock: what a killed process left by it is written over, not left for ever.
    scratch, lock = (out.with_name(f".{out.name}.{word}") for word in ("part", "lock"))
    need = sum((folder / name).stat().st_size for name in names)
    with (
        locks.held(lock, timeout_s=_PACKING_S, clock=SystemClock(), observe=ignore),
        storage_errors("write", out, need_bytes=need),
        replacing(out, scratch) as file,
    ):
        _write(file, folder, names)
    return out


def unpack(bundle: Path, folder: Path) -> Artifact:
    """Extract a bundle into a new folder, which appears only when everything in it was verified.

    Args:
        bundle: a `.npuart` file. Its manifest comes first and says which names and sizes must follow, so nothing
            else can be written, and never more than the bundle's own size.
        folder: must not exist, or be empty.

    Raises:
        UsageError: there is no such bundle, or the folder is not empty.
        ArtifactError: the bundle is not exactly what `pack` writes; nothing was left behind.
        StorageError: it cannot be read or written; nothing was left behind.
    """
    if not is_bundle(bundle):
        raise UsageError(f"there is no artifact at {bundle}", advice="give the folder or the .npuart file of a build")
    with storage_errors("read", folder):
        taken = folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
    if taken:
        raise UsageError(f"{folder} is there and not an empty folder", advice="choose another folder")
    need = bundle.stat().st_size
    with storage_errors("unpack into", folder, need_bytes=need):
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            with open_regular(bundle.resolve()) as file:
                _extract(file, scratch, str(bundle))
            with naming(bundle, scratch):
                artifact = verify_folder(scratch)
            scratch.chmod(0o755)
            scratch.rename(folder)
        except BaseException:
            shutil.rmtree(scratch)
            raise
    return replace(artifact, root=folder)


def peek(bundle: Path) -> Manifest:
    """The manifest of a bundle, while nothing is unpacked: only the manifest is verified, and that the end is there.

    Raises:
        IntegrityError: it does not begin with a whole manifest, or stops before its end, as a copy under way does.
        IncompatibleArtifactError: another version of the format.
        StorageError: it cannot be read.
    """
    where = str(bundle)
    with storage_errors("read", bundle), open_regular(bundle.resolve()) as file:
        header = file.read(len(_Member(MANIFEST_NAME.encode(), 0, 0, 0).header))
        if not header.startswith(b"PK\3\4") or header[_LOCAL.size :][: len(MANIFEST_NAME)] != MANIFEST_NAME.encode():
            raise _damaged(where, f"it does not begin with {MANIFEST_NAME!r}")
        (size,) = struct.unpack("<Q", header[-8:])
        if size > min(MANIFEST_LIMIT_BYTES, os.fstat(file.fileno()).st_size):
            raise _damaged(where, f"{MANIFEST_NAME!r} is too large")
        manifest = decode_manifest(file.read(size), where=f"{where}: {MANIFEST_NAME}")
        file.seek(max(0, os.fstat(file.fileno()).st_size - _END.size))
        if not file.read().startswith(b"PK\5\6"):
            raise _damaged(where, "its end is missing")
    return manifest


@contextmanager
def naming(bundle: Path, folder: Path) -> Iterator[None]:
    """Let errors about unpacked files name the bundle: the user never saw the folder that they lie in."""
    try:
        yield
    except ArtifactError as error:
        raise type(error)(error.message.replace(str(folder), str(bundle)), advice=error.advice) from error


def _names(manifest: Manifest, *, signed: bool) -> list[str]:
    files = sorted(record.name for record in manifest.files)
    return [MANIFEST_NAME, *([SIGNATURE_NAME] if signed else []), *files]


def _write(file: BinaryIO, folder: Path, names: Sequence[str]) -> None:
    members: list[_Member] = []
    for name in names:
        path = folder / name
        member = _Member(name.encode(), path.stat().st_size, _checksum(path), file.tell())
        file.write(member.header)
        with open_regular(path) as source:
            shutil.copyfileobj(source, file, _CHUNK)
        members.append(member)
    file.write(_tail(members, file.tell()))


def _checksum(path: Path) -> int:
    crc = 0
    with open_regular(path) as source:
        while chunk := source.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def _tail(members: Sequence[_Member], offset: int) -> bytes:
    directory = b"".join(member.directory_entry for member in members)
    count = len(members)
    end64 = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, _MADE_ON_UNIX, _VERSION, 0, 0, count, count, len(directory), offset
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, offset + len(directory), 1)
    end = _END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, _IN_EXTRA, _IN_EXTRA, 0)
    return directory + end64 + locator + end


def _extract(file: BinaryIO, folder: Path, where: str) -> None:
    first = _take(file, folder, MANIFEST_NAME, MANIFEST_LIMIT_BYTES, where)
    manifest = decode_manifest((folder / MANIFEST_NAME).read_bytes(), where=f"{where}: {MANIFEST_NAME}")
    sizes = {record.name: record.bytes for record in manifest.files}
    signed = _next_name(file) == SIGNATURE_NAME.encode()
    members = [first]
    for name in _names(manifest, signed=signed)[1:]:
        limit = sizes.get(name, _SIGNATURE_LIMIT_BYTES)
        members.append(_take(file, folder, name, limit, where))
    offset = file.tell()
    tail = _tail(members, offset)
    if file.read(len(tail) + 1) != tail:
        raise _damaged(where, "its directory is not the one that its content demands")


def _take(file: BinaryIO, folder: Path, name: str, limit: int, where: str) -> _Member:
    """Copy the next member into the folder, if it is the wanted one, and compare its header."""
    offset = file.tell()
    length = len(_Member(name.encode(), 0, 0, 0).header)
    header = file.read(length)
    if len(header) != length:
        raise _damaged(where, f"it ends before {name!r}")
    (size,) = struct.unpack("<Q", header[-8:])
    if size > limit:
        raise _damaged(where, f"{name!r} is too large, or not where it must be")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    crc = 0
    with path.open("xb") as out:
        for chunk in _chunks(file, size):
            crc = zlib.crc32(chunk, crc)
            out.write(chunk)
    member = _Member(name.encode(), size, crc, offset)
    if member.header != header:
        raise _damaged(where, f"{name!r} or its header was changed")
    return member


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (chunk := file.read(min(size, _CHUNK))):
        size -= len(chunk)
        yield chunk


def _next_name(file: BinaryIO) -> bytes:
    """The name of the next member, without moving on; empty at the end of the members."""
    here = file.tell()
    header = file.read(_LOCAL.size)
    name = b""
    if len(header) == _LOCAL.size and header.startswith(b"PK\3\4"):
        name = file.read(_LOCAL.unpack(header)[9])
    file.seek(here)
    return name


def _damaged(where: str, why: str) -> IntegrityError:
    return IntegrityError(f"{where} is damaged, or not a bundle of npuops: {why}", advice=GET_AGAIN)
