"""External data of an ONNX model: only files inside the model's own folder, only bytes that exist."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx

from npuops.errors import MalformedModelError, ModelError, UnsafeModelError
from npuops.models.onnx_tensors import is_external, tensor_bytes, tensors_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Where the values of one tensor are."""

    tensor: onnx.TensorProto
    path: Path
    offset: int
    length: int


def external_regions(proto: onnx.ModelProto, folder: Path) -> list[Region]:
    """The checked regions of every external tensor.

    Raises:
        UnsafeModelError: the location leaves `folder`, or the same bytes are claimed many times over.
        MalformedModelError: a missing file, or a region beyond its end or of the wrong length.
    """
    regions = [_region(tensor, folder) for tensor in tensors_of(proto) if is_external(tensor)]
    claimed = sum(region.length for region in regions)
    present = sum(path.stat().st_size for path in {region.path for region in regions})
    if claimed > 4 * present:
        raise UnsafeModelError(
            f"external tensors claim {claimed} bytes of {present} that exist", advice="the file is damaged or hostile"
        )
    return regions


def load_external(regions: list[Region]) -> None:
    """Put the bytes into their tensors.

    Raises:
        ModelError: a file cannot be read.
    """
    for region in regions:
        try:
            with region.path.open("rb") as file:
                file.seek(region.offset)
                region.tensor.raw_data = file.read(region.length)
        except OSError as error:
            raise ModelError(f"cannot read {region.path}: {error.strerror}", advice="check the permissions") from error
        region.tensor.data_location = onnx.TensorProto.DEFAULT
        del region.tensor.external_data[:]


def _region(tensor: onnx.TensorProto, folder: Path) -> Region:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = _inside(entries.get("location", ""), tensor.name, folder)
    size = path.stat().st_size
    expected = tensor_bytes(tensor)
    offset = _number(entries.get("offset", "0"), "offset", tensor.name)
    length = _number(entries.get("length") or str(expected), "length", tensor.name)
    if offset + length > size:
        raise MalformedModelError(
            f"tensor {tensor.name!r} ends at byte {offset + length} of {path.name}, which has {size}",
            advice="copy the external data file again, complete",
        )
    if length != expected:
        raise MalformedModelError(f"tensor {tensor.name!r} needs {expected} bytes but claims {length} in {path.name}")
    return Region(tensor=tensor, path=path, offset=offset, length=length)


def _inside(location: str, tensor: str, folder: Path) -> Path:
    pure = PurePosixPath(location)
    if not location or "\0" in location or "\\" in location:
        raise MalformedModelError(f"tensor {tensor!r} names no usable external file: {location!r}")
    home = folder.resolve()
    try:
        path = (folder / pure).resolve()
        present = path.is_file()
    except (OSError, RuntimeError) as error:  # a name too long, a folder that is closed, links in a circle
        raise MalformedModelError(f"tensor {tensor!r} names no usable external file: {location[:200]!r}") from error
    if pure.is_absolute() or ".." in pure.parts or not path.is_relative_to(home):
        raise UnsafeModelError(
            f"tensor {tensor!r} wants bytes from {location!r}, outside the model's folder",
            advice="put the data file beside the model, as a real file and not a link that leads away",
        )
    if not present:
        raise MalformedModelError(
            f"the external data file {location!r} is missing", advice=f"copy it to {folder} beside the model"
        )
    return path


def _number(text: str, what: str, tensor: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise MalformedModelError(f"tensor {tensor!r} has the {what} {text[:40]!r}, which is not a number of bytes")
    return int(text)
