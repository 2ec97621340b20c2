"""The bytes of a model file: read once, within limits, and recognized by what they are."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable
from pathlib import Path

from npuops.errors import MalformedModelError, ModelError, UnsafeModelError
from npuops.models.model import ModelFormat
from npuops.units import format_bytes

MAX_FILE_BYTES = 2**31
"""Protobuf and FlatBuffers both end at 2 GiB; larger models keep their weights in external files."""

_CHUNK = 1 << 20
_OTHER_FORMATS = {
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"PK\x03\x04": "a zip archive (a PyTorch or Keras file?); export the model to ONNX",
    b"\x89HDF": "an HDF5 file (Keras?); export the model to ONNX or TFLite",
    b"GGUF": "a GGUF file; export the model to ONNX",
    b"\x7fELF": "an executable",
}


def read_content(path: Path) -> bytes:
    """All bytes of the regular file `path`.

    Raises:
        ModelError: missing, a folder, a device, or not readable.
        MalformedModelError: empty.
        UnsafeModelError: larger than `MAX_FILE_BYTES`.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", advice="check the path") from error
    except ValueError as error:  # a NUL byte in the name
        raise ModelError(f"cannot read {path!r}: {error}", advice="check the path") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise ModelError(f"{path} is {kind}", advice="name the model file itself (.onnx or .tflite)")
    if status.st_size == 0:
        raise MalformedModelError(f"{path} is empty", advice="export or download the model again")
    if status.st_size > MAX_FILE_BYTES:
        raise UnsafeModelError(
            f"{path} has {format_bytes(status.st_size)}; a model file can have 2 GiB at most",
            advice="save the weights of a large ONNX model as external data",
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", advice="check the permissions") from error


def format_of(content: bytes, where: str) -> ModelFormat:
    """TFLite by its file identifier; what looks like a protobuf message is tried as ONNX.

    Raises:
        MalformedModelError: a known other format, or a file of zeros.
    """
    if content[4:8] == b"TFL3":
        return ModelFormat.TFLITE
    for magic, words in _OTHER_FORMATS.items():
        if content.startswith(magic):
            raise MalformedModelError(f"{where} is {words}", advice="npuops reads ONNX and TFLite files")
    if not content[:16].strip(b"\0"):
        raise MalformedModelError(f"{where} begins with zeros: not a model", advice="export or download it again")
    return ModelFormat.ONNX


def digest_files(content: bytes, others: Iterable[Path] = ()) -> str:
    """`sha256:…` over the content of the model file and then of `others`, in order of their paths."""
    total = hashlib.sha256(content)
    for path in sorted(others):
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    total.update(chunk)
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror}", advice="check the permissions") from error
    return f"sha256:{total.hexdigest()}"
