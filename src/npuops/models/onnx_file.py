"""ONNX files: read with suspicion, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Final

import onnx
import onnx.external_data_helper
from google.protobuf.message import DecodeError

from npuops.errors import MalformedModelError, StorageError, UnsupportedModelError
from npuops.models.content import digest_files, format_of, read_content
from npuops.models.model import ModelFormat
from npuops.models.onnx_external import external_regions, load_external
from npuops.models.onnx_guard import guard
from npuops.models.onnx_tensors import has_data, is_external, tensors_of
from npuops.models.onnx_wire import check_wire
from npuops.models.shapes import skeleton_of

MIN_OPSET: Final = 7
MAX_OPSET: Final = 24
INLINE_BYTES: Final = 1_900_000_000
"""Above this, `write_onnx` puts the weights into a file beside the model (protobuf ends at 2 GiB)."""


def read_onnx(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """A checked model, its nodes in order.

    Args:
        path: the file; external data must lie in its folder.
        weights: load external data too, and insist that every initializer has its values.

    Raises:
        ModelError: missing or unreadable.
        MalformedModelError: not ONNX, truncated, or contradicting itself.
        UnsafeModelError: reaches outside its folder, or asks for absurd resources.
        UnsupportedModelError: an opset or operator that is not read, or stripped weights.
    """
    proto = parse_onnx(read_content(path), path)
    if weights:
        load_external(external_regions(proto, path.parent))
        bare = [tensor.name for tensor in proto.graph.initializer if not has_data(tensor)]
        if bare:
            raise UnsupportedModelError(
                f"{path} has no values for {len(bare)} weights, such as {bare[0]!r}",
                advice="the weights were stripped: `npuops inspect` works, everything else needs the full model",
            )
    return proto


def parse_onnx(content: bytes, path: Path) -> onnx.ModelProto:
    """Like `read_onnx` with `weights=False`, from bytes already read.

    External data is checked, not loaded.
    """
    if format_of(content, str(path)) is not ModelFormat.ONNX:
        raise UnsupportedModelError(f"{path} is a TFLite file", advice="npuops.models.as_onnx imports it")
    check_wire(content, str(path))
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise MalformedModelError(
            f"{path} is not an ONNX file, or it is truncated", advice="export it again"
        ) from error
    if not proto.HasField("graph") or not proto.graph.output:
        raise MalformedModelError(f"{path} holds no ONNX graph with outputs", advice="export or download it again")
    _check_versions(proto, path)
    guard(proto)
    external_regions(proto, path.parent)
    _run_checker(proto, path)
    return proto


def opset_of(proto: onnx.ModelProto) -> int | None:
    """Version of the default domain, or None where the model does not import it."""
    versions = [entry.version for entry in proto.opset_import if entry.domain in {"", "ai.onnx"}]
    return max(versions) if versions else None


def digest_of(path: Path) -> str:
    """`sha256:…` over the file and, for ONNX, its external data files in order of name."""
    content = read_content(path)
    if format_of(content, str(path)) is ModelFormat.TFLITE:
        return digest_files(content)
    return digest_files(content, external_files(parse_onnx(content, path), path))


def external_files(proto: onnx.ModelProto, path: Path) -> set[Path]:
    """The external data files of a model that was read with `weights=False`."""
    return {region.path for region in external_regions(proto, path.parent)}


def write_onnx(proto: onnx.ModelProto, path: Path) -> None:
    """Write `path` in one step: either the old file stays, or the new one is complete.

    Large models get `<name>.<digest>.data` beside them, which is in place before the model is.

    Raises:
        StorageError: the disk is full, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if proto.ByteSize() <= INLINE_BYTES:
            _replace(path, proto.SerializeToString())
            return
        _write_large(proto, path)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}", advice="check free space and permissions of the folder"
        ) from error


def _write_large(proto: onnx.ModelProto, path: Path) -> None:
    """The data file is named after its content, so that the old model keeps its own until it is replaced."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".npuops-") as folder:
        onnx.external_data_helper.convert_model_to_external_data(copy, location="data")
        onnx.external_data_helper.write_external_data_tensors(copy, folder)
        written = Path(folder) / "data"
        with written.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        data = path.with_name(f"{path.name}.{digest[:16]}.data")
        written.replace(data)
    for tensor in tensors_of(copy):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = data.name
    _replace(path, copy.SerializeToString())
    stale = re.compile(re.escape(path.name) + r"\.[0-9a-f]{16}\.data")
    for other in path.parent.iterdir():
        if stale.fullmatch(other.name) and other != data:
            other.unlink()


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def _check_versions(proto: onnx.ModelProto, path: Path) -> None:
    opset = opset_of(proto)
    if opset is not None and not MIN_OPSET <= opset <= MAX_OPSET:
        raise UnsupportedModelError(
            f"{path} uses ONNX opset {opset}; npuops reads {MIN_OPSET} to {MAX_OPSET}",
            advice="convert it with onnx.version_converter, or export with opset 17",
        )
    if not proto.opset_import:
        raise MalformedModelError(f"{path} names no opset", advice="export it again with a current exporter")
    if proto.ir_version > onnx.IR_VERSION:
        raise UnsupportedModelError(
            f"{path} has IR version {proto.ir_version}; the installed onnx reads up to {onnx.IR_VERSION}",
            advice="update the package onnx, or export with an older IR version",
        )


def _run_checker(proto: onnx.ModelProto, path: Path) -> None:
    skeleton = skeleton_of(proto)
    for value in (*skeleton.graph.input, *skeleton.graph.output):
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            # The checker wants a shape even where runtimes take a tensor of unknown rank; it never reads it.
            value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(skeleton)
    except (onnx.checker.ValidationError, RuntimeError, ValueError, TypeError) as error:
        words = str(error).strip().split("\n", maxsplit=1)[0][:300]
        if "No Op registered" in words:
            raise UnsupportedModelError(
                f"{path} uses an operator that its opset does not have: {words}",
                advice="export it again; an operator of your own needs a domain of its own",
            ) from error
        raise MalformedModelError(f"{path} breaks the ONNX rules: {words}", advice="export it again") from error


def is_stripped(proto: onnx.ModelProto) -> bool:
    """Some initializers have neither values nor an external file."""
    return any(not is_external(tensor) and not has_data(tensor) for tensor in proto.graph.initializer)
