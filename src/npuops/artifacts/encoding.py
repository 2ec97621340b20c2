"""The manifest as bytes: one canonical form, its digest, and a decoder that takes nothing else.

Canonical form: JSON in UTF-8, keys sorted, indented by two spaces, one newline at the end. `digest` is `sha256:` and
the SHA-256 of the canonical form with `digest` empty; so, in any language: cut the value out of the file and hash the
rest. The decoder encodes what it understood again and wants the very same bytes: a flipped bit, an unknown key, a
key given twice or a stray blank all differ.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Final

import msgspec

from npuops.artifacts.manifest import MANIFEST_NAME, SCHEMA, SIGNATURE_NAME, Manifest
from npuops.errors import ArtifactError, IncompatibleArtifactError, IntegrityError, OptionError

MANIFEST_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""A manifest grows with the nodes of its placement report, about 200 bytes each; this holds 300,000 of them."""

GET_AGAIN: Final = "get the artifact again from where it was built, or build it again"

LATER: Final = frozenset({"pipeline"})
"""Keys that came after the first artifacts of this format were written; left out where they are None."""

_NAME_LIMIT: Final = 1024
_DEPTH_LIMIT: Final = 32
"""Real names are far below both; without them a hostile one costs minutes here, and does not fit in a ZIP header."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_FAMILY: Final = SCHEMA.rpartition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    schema: str = ""


def canonical_json(manifest: Manifest) -> bytes:
    """The bytes of `manifest.json`.

    Raises:
        ArtifactError: a value that JSON cannot hold (NaN, infinity), or of a type the manifest does not allow.
    """
    try:
        plain = msgspec.to_builtins(manifest)
        _refuse_endless(plain)
        # Through the types once: an int in a float field would otherwise be written as `1` and read back as `1.0`.
        settled = msgspec.convert(plain, Manifest)
    except (msgspec.ValidationError, TypeError) as error:
        raise ArtifactError(f"the manifest cannot be written: {error}") from error
    return _encode(settled)


def manifest_digest(manifest: Manifest) -> str:
    """`sha256:…` over the canonical form with an empty `digest`."""
    return "sha256:" + hashlib.sha256(canonical_json(replace(manifest, digest=""))).hexdigest()


def decode_manifest(data: bytes, *, where: str) -> Manifest:
    """Read a manifest and prove that it is whole.

    Args:
        data: the bytes of `manifest.json`.
        where: what to call it in an error, for example its path.

    Raises:
        IntegrityError: not canonical, an unknown key, a wrong type, a wrong digest, an impossible file name.
        IncompatibleArtifactError: another version of the format.
    """
    if len(data) > MANIFEST_LIMIT_BYTES:
        raise _damaged(where, f"it has {len(data)} bytes, more than any manifest needs")
    _check_schema(_parse(data, _Head, where).schema, where)
    manifest: Manifest = _parse(data, Manifest, where)
    if _encode(manifest) != data:
        raise _damaged(where, _first_unknown(data, manifest))
    if manifest.digest != manifest_digest(manifest):
        raise _damaged(where, "its content differs from its own digest")
    check_names(manifest, where=where)
    for record in manifest.files:
        if not _SHA256.fullmatch(record.sha256) or record.bytes < 0:
            raise _damaged(where, f"no valid digest and size for {record.name!r}")
    return manifest


def check_names(manifest: Manifest, *, where: str) -> None:
    """Refuse file names that could reach outside of the folder, or that are not one and the same everywhere.

    Raises:
        IntegrityError: absolute, with `..`, not normalised, reserved, given twice (also in other case), below a file,
            or the entry is not among them.
    """
    seen: set[str] = set()
    for record in manifest.files:
        if fault := _name_fault(record.name):
            raise _damaged(where, f"the file name {record.name[:200]!r} {fault}")
        folded = record.name.casefold()
        if folded in seen:
            raise _damaged(where, f"the file name {record.name!r} is given twice")
        seen.add(folded)
    for name in sorted(seen):
        if any(parent.as_posix() in seen for parent in PurePosixPath(name).parents):
            raise _damaged(where, f"the file {name!r} lies in another file")
    if manifest.entry not in {record.name for record in manifest.files}:
        raise _damaged(where, f"the entry {manifest.entry!r} is not among its files")


def _name_fault(name: str) -> str:
    if len(name) > _NAME_LIMIT or name.count("/") >= _DEPTH_LIMIT:
        return "is too long"
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return "reaches outside of the artifact"
    if not path.parts or path.as_posix() != name or "\\" in name or not unicodedata.is_normalized("NFC", name):
        return "is not normalised"
    if not name.isprintable() or any(len(part.encode()) > 255 for part in path.parts):
        return "cannot be a file's name on every system"
    if name.casefold() in {MANIFEST_NAME, SIGNATURE_NAME}:
        return "is reserved"
    return ""


def _encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(_plain(manifest), order="sorted"), indent=2) + b"\n"


def _plain(manifest: Manifest) -> dict[str, Any]:
    """Without what is newer than the format and not used: a manifest from before it must keep its bytes."""
    plain: dict[str, Any] = msgspec.to_builtins(manifest)
    return {key: value for key, value in plain.items() if key not in LATER or value is not None}


def _parse(data: bytes, kind: type[Any], where: str) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OptionError) as error:
        raise _damaged(where, str(error)) from error


def _check_schema(schema: str, where: str) -> None:
    if schema == SCHEMA:
        return
    if not schema.startswith(f"{_FAMILY}/"):
        raise IntegrityError(f"{where} is not the manifest of an artifact", advice=GET_AGAIN)
    raise IncompatibleArtifactError(
        f"{where} is of format {schema!r}; this npuops reads {SCHEMA!r}",
        advice="use the version of npuops that wrote it (or a newer one), or build the artifact again with this one",
    )


def _refuse_endless(value: object) -> None:
    for path, number in _floats(value, ""):
        if not math.isfinite(number):
            raise ArtifactError(
                f"the manifest cannot be written: {path.lstrip('.')} is {number}, which JSON cannot hold",
                advice="whoever fills the manifest must leave a value away that is not finite",
            )


def _floats(value: object, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _floats(inner, f"{path}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, inner in enumerate(value):
            yield from _floats(inner, f"{path}[{index}]")


def _first_unknown(data: bytes, manifest: Manifest) -> str:
    """Why the bytes are not canonical: an unknown key if there is one, for that is the likeliest honest cause."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return str(error)  # in a part that the typed decoder skips
    key = next(_unknown(found, msgspec.to_builtins(manifest), ""), None)
    return f"unknown key {key.lstrip('.')!r}" if key else "it is not in canonical form"


def _unknown(found: object, known: object, path: str) -> Iterator[str]:
    if isinstance(found, Mapping) and isinstance(known, Mapping):
        for key, inner in found.items():
            if key in known:
                yield from _unknown(inner, known[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(found, Sequence) and isinstance(known, Sequence) and not isinstance(found, str):
        for index, (inner, counterpart) in enumerate(zip(found, known, strict=False)):
            yield from _unknown(inner, counterpart, f"{path}[{index}]")


def _damaged(where: str, why: str) -> IntegrityError:
    return IntegrityError(f"{where} is damaged: {why}", advice=GET_AGAIN)
