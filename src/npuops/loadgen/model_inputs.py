"""Tensors to send: random ones of the model's shapes and datatypes, from a seed, or the user's own."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError, OptionError, nearest
from npuops.evaluate.run_input import read_npz
from npuops.models.model import TensorInfo

DTYPES: Final[dict[str, str]] = {
    "BOOL": "bool",
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "FP16": "float16",
    "BF16": "bfloat16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "string",
}
"""The protocol's datatypes in numpy's words; `bfloat16` and `string` are ours."""
HALVES: Final = frozenset({"FP16", "BF16"})
MOST_BYTES: Final = 1 << 30
"""Of one request: metadata that asks for more is taken for a mistake."""
_TEXT_LENGTH: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One input as the server describes it; -1 stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tensor:
    """One input to send.

    Attributes:
        raw: its bytes as the binary extension wants them: little-endian, row-major; for BYTES each element after its
            length in four bytes.
        array: the same values.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes
    array: NDArray[Any]

    @property
    def no_json(self) -> str:
        """Why JSON cannot hold it, or ""."""
        if self.datatype in HALVES:
            return f"is {self.datatype}"
        if self.datatype == "BYTES":
            return "" if all(_is_text(item) for item in _elements(self.array)) else "holds bytes that are no text"
        finite = self.array.dtype.kind != "f" or bool(np.isfinite(self.array).all())
        return "" if finite else "holds NaN or infinity"

    def values(self) -> list[Any] | None:
        """Row-major, as JSON can hold them; None where it cannot (`no_json`). Slow for large ones."""
        flat = self.array.reshape(-1)
        if self.no_json:
            return None
        if self.datatype == "FP32":
            # As text a float32 has up to nine digits; tolist() would write it with seventeen.
            return [float(str(value)) for value in flat.astype(np.float32)]
        if self.datatype == "BYTES":
            return [item.decode() for item in _elements(self.array)]
        values: list[Any] = flat.tolist()
        return values


def settled_ports(
    ports: Sequence[Port], *, batch: int | None = None, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[Port, ...]:
    """The inputs with every size known.

    Args:
        ports: as the server describes them.
        batch: what a free first axis becomes; 1 if None.
        shapes: whole shapes by name, which go before everything else.

    Raises:
        OptionError: a size is still unknown, a name is no input, or the model has no free batch.
        DataError: a datatype that nobody knows, or an absurd size.
    """
    wanted = dict(shapes or {})
    unknown = [name for name in wanted if name not in {port.name for port in ports}]
    if unknown:
        raise OptionError(f"the model has no input {unknown[0]!r}", advice=nearest(unknown[0], [p.name for p in ports]))
    settled = tuple(_settled(port, wanted.get(port.name), batch) for port in ports)
    size = sum(prod(port.shape) * _item_bytes(port) for port in settled)
    if size > MOST_BYTES:
        raise DataError(f"one request would have {size} bytes", advice="give smaller shapes with --shape")
    return settled


def _settled(port: Port, shape: tuple[int, ...] | None, batch: int | None) -> Port:
    if port.datatype not in DTYPES:
        raise DataError(f"input {port.name!r} has datatype {port.datatype!r}", advice=nearest(port.datatype, DTYPES))
    if shape is not None:
        return Port(name=port.name, datatype=port.datatype, shape=shape)
    sizes = list(port.shape)
    if sizes and sizes[0] < 0:
        sizes[0] = batch or 1
    elif batch is not None and (not sizes or sizes[0] != batch):
        raise OptionError(
            f"input {port.name!r} has shape {list(port.shape)}: its first size is fixed", advice="leave --batch out"
        )
    if any(size < 0 for size in sizes):
        example = "x".join(str(size) if size >= 0 else "16" for size in sizes)
        raise OptionError(
            f"input {port.name!r} has shape {list(port.shape)}, and -1 can be any size",
            advice=f"say it with --shape {port.name}={example}, or give --input FILE.npz",
        )
    return Port(name=port.name, datatype=port.datatype, shape=tuple(sizes))


def random_tensors(ports: Sequence[Port], seed: int) -> tuple[Tensor, ...]:
    """Floats evenly from 0 to 1; 8-bit integers over their whole range; wider ones 0 or 1; text of 16 letters.

    Wider integers are mostly indices into tables (tokens, masks, segments): 0 and 1 are inside of every table.

    Args:
        ports: with every size known.
        seed: the same seed gives the same tensors.
    """
    generator = np.random.default_rng([seed, 2])
    return tuple(tensor_of(port.name, port.datatype, _random(port, generator)) for port in ports)


def _random(port: Port, generator: np.random.Generator) -> NDArray[Any]:
    shape = port.shape
    match port.datatype:
        case "BYTES":
            letters = generator.integers(ord("a"), ord("z") + 1, (prod(shape), _TEXT_LENGTH), np.uint8)
            return np.array([row.tobytes() for row in letters], object).reshape(shape)
        case "BF16" | "FP32":
            return generator.random(shape, np.float32)
        case "FP16" | "FP64":
            return generator.random(shape).astype(DTYPES[port.datatype])
        case "INT8" | "UINT8":
            kind = np.dtype(DTYPES[port.datatype])
            limits = np.iinfo(kind)
            return generator.integers(limits.min, limits.max + 1, shape, np.int16).astype(kind)
        case _:
            return generator.integers(0, 2, shape).astype(DTYPES[port.datatype])


def tensor_of(name: str, datatype: str, array: NDArray[Any]) -> Tensor:
    """An array as it goes on the wire; for BF16 give float32, for BYTES an array of bytes or str."""
    match datatype:
        case "BYTES":
            raw = b"".join(len(item).to_bytes(4, "little") + item for item in _elements(array))
        case "BF16":
            raw = (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
        case _:
            raw = array.astype(np.dtype(DTYPES[datatype]).newbyteorder("<")).tobytes()
    return Tensor(name=name, datatype=datatype, shape=tuple(array.shape), raw=raw, array=array)


def _is_text(item: bytes) -> bool:
    try:
        item.decode()
    except UnicodeDecodeError:
        return False
    return True


def _elements(array: NDArray[Any]) -> list[bytes]:
    return [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1).tolist()]


def npz_tensors(path: Path, ports: Sequence[Port]) -> tuple[Tensor, ...]:
    """The user's own input.

    Args:
        path: `.npz`, one array for each input; any other file, a picture for instance, is the one element of a model
            whose only input is BYTES.
        ports: as the server describes them; where it describes none, the arrays' own names and dtypes are sent.

    Raises:
        DataError: it cannot be read, or a name, dtype or shape is not the model's.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}", advice="--input takes a .npz with one array for each input")
    if path.suffix.lower() != ".npz" and [port.datatype for port in ports] == ["BYTES"]:
        # Not by way of an array of bytes: that would drop the zeros at its end.
        sizes = [1 if size < 0 else size for size in ports[0].shape]
        if prod(sizes) != 1:
            raise DataError(
                f"input {ports[0].name!r} has shape {list(ports[0].shape)}, and {path} is one element",
                advice="give a .npz with an array of bytes of that shape",
            )
        return (tensor_of(ports[0].name, "BYTES", np.array([path.read_bytes()], object).reshape(sizes)),)
    if not ports or any(DTYPES.get(port.datatype) in {"string", "bfloat16"} for port in ports):
        return _as_they_are(path, ports)
    wanted = [
        TensorInfo(
            name=port.name,
            dtype=DTYPES.get(port.datatype, port.datatype),
            shape=tuple(size if size >= 0 else None for size in port.shape),
        )
        for port in ports
    ]
    found = read_npz(path, wanted, where=str(path))
    return tuple(tensor_of(port.name, port.datatype, found[port.name]) for port in ports)


def _as_they_are(path: Path, ports: Sequence[Port]) -> tuple[Tensor, ...]:
    advice = "write it with numpy.savez(path, input_name=array)"
    try:
        with path.open("rb") as file:  # numpy leaves a broken one open
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path} holds one array without a name", advice=advice)
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not a readable .npz file: {error}", advice=advice) from error
    datatypes = {port.name: port.datatype for port in ports}
    absent = [port.name for port in ports if port.name not in arrays]
    if absent:
        raise DataError(f"{path} has no array for input {absent[0]!r}", advice=nearest(absent[0], arrays))
    spelt = {numpy: protocol for protocol, numpy in DTYPES.items()}
    tensors = []
    for name in datatypes or arrays:
        array = arrays[name]
        datatype = datatypes.get(name) or ("BYTES" if array.dtype.kind in "SU" else spelt.get(array.dtype.name))
        if datatype is None:
            raise DataError(f"{path}: {name!r} is {array.dtype}, which the protocol cannot carry")
        tensors.append(tensor_of(name, datatype, array))
    return tuple(tensors)


def _item_bytes(port: Port) -> int:
    kind = DTYPES[port.datatype]
    return {"string": 4 + _TEXT_LENGTH, "bfloat16": 2}.get(kind) or np.dtype(kind).itemsize
