"""Where a model's inputs lie in a request, and what becomes of its outputs: a head matched to a signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Final

from npuops.errors import DataError, nearest
from npuops.runtime.bytes_tensor import LENGTH_BYTES
from npuops.runtime.signature import Port, Shape, Signature
from npuops.server.datatypes import Datatype, check_json, datatype_named, datatype_of
from npuops.server.infer_request import InferHead, OutputWish, RegionRef, TensorHead

Labels = Mapping[str, Sequence[str]]
"""Output name → class names, for the classification extension."""

ASK_BINARY: Final = "ask for it as bytes: parameter binary_data of the output, or binary_data_output of the request"


class Lies(Enum):
    """Where an input's data are."""

    BODY = "body"
    JSON = "json"
    REGION = "region"
    RAW_TEXT = "raw text"
    """The whole body is the one element of a BYTES input."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where one input comes from.

    Attributes:
        position: among the request's inputs.
        piece: among those that do not lie in shared memory.
        start: in the binary part of the body, in bytes.
        stop: behind its last byte.
        region: the place in shared memory.
    """

    lies: Lies
    position: int
    piece: int = 0
    start: int = 0
    stop: int = 0
    region: RegionRef | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """One output of the answer.

    Attributes:
        index: among the model's outputs.
        port: of the model.
        datatype: of the tensor.
        binary: as bytes behind the JSON.
        classes: best classes instead of the tensor; 0 for the tensor.
        region: the place in shared memory that it goes to.
        labels: of its classes.
    """

    index: int
    port: Port
    datatype: Datatype
    binary: bool
    classes: int = 0
    region: RegionRef | None = None
    labels: Sequence[str] = ()


def raw_shape(port: Port, body_bytes: int, *, batched: bool) -> Shape:
    """The shape of a model's only input, from nothing but its bytes.

    Raises:
        DataError: none fits, or more than one does.
    """
    if port.shape is None:
        raise DataError(f"not even the rank of input {port.name!r} is known", advice="send a JSON head with its shape")
    sizes = [1 if batched and axis == 0 else size for axis, size in enumerate(port.shape)]
    free = [axis for axis, size in enumerate(sizes) if size < 0]
    if not port.item_bytes:
        if prod(tuple(abs(size) for size in sizes)) != 1:
            raise DataError(f"a body without a JSON head is one element, input {port.name!r} takes {list(port.shape)}")
        return tuple(abs(size) for size in sizes)
    if len(free) > 1:
        raise DataError(f"input {port.name!r} has {len(free)} free axes", advice="send a JSON head with its shape")
    rest = prod(tuple(size for size in sizes if size >= 0)) * port.item_bytes
    if free and rest and body_bytes % rest == 0:
        sizes[free[0]] = body_bytes // rest
    elif free or body_bytes != rest:
        raise DataError(f"a body of {body_bytes} bytes fits no shape of input {port.name!r}, {list(port.shape)}")
    return tuple(sizes)


def positions_of(inputs: Sequence[TensorHead], ports: Sequence[Port]) -> list[int]:
    """For each input of the model, in its order, where it stands in the request.

    Raises:
        DataError: one is missing, unknown, or there twice.
    """
    found: dict[str, int] = {}
    for position, tensor in enumerate(inputs):
        if tensor.name in found:
            raise DataError(f"input {tensor.name!r} is given twice")
        found[tensor.name] = position
    known = {port.name for port in ports}
    for name in found.keys() - known:
        raise DataError(f"the model has no input {name!r}", advice=nearest(name, known))
    for name in known - found.keys():
        raise DataError(f"input {name!r} is missing", advice=f"given: {', '.join(map(repr, found)) or 'none'}")
    return [found[port.name] for port in ports]


def check_datatype(port: Port, tensor: TensorHead) -> None:
    """The request's datatype is the model's, and its data have the form they claim.

    Raises:
        DataError: not so.
    """
    datatype = datatype_named(tensor.datatype, tensor.name)
    wanted = datatype_of(port.dtype)
    if datatype is not wanted:
        raise DataError(f"input {port.name!r} is {datatype.word}, the model takes {wanted.word}")
    if tensor.is_json:
        check_json(datatype, f"input {port.name!r}", "send it as bytes, with the parameter binary_data_size")


def starts_of(inputs: Sequence[TensorHead]) -> tuple[list[int], int]:
    """Where each input's binary data begin, in the request's order, and where the last end."""
    starts: list[int] = []
    end = 0
    for tensor in inputs:
        starts.append(end)
        end += tensor.data_bytes or 0
    return starts, end


def source_of(tensor: TensorHead, size: int, position: int, piece: int, start: int) -> Source:
    """Where one input comes from.

    Args:
        tensor: of the request.
        size: bytes of its shape; -1 for text.
        position: among the request's inputs.
        piece: among those that do not lie in shared memory.
        start: of its data in the binary part, in bytes.

    Raises:
        DataError: the bytes it claims are not those of its shape.
    """
    found = tensor.data_bytes if tensor.region is None else tensor.region.byte_size
    if found is None:
        return Source(Lies.JSON, position, piece)
    least = size if size >= 0 else prod(tensor.shape) * LENGTH_BYTES
    if found < least or (size >= 0 and found != size):
        raise DataError(
            f"input {tensor.name!r} has {found} bytes of data, {tensor.datatype} of shape {list(tensor.shape)} has "
            f"{'at least ' if size < 0 else ''}{least}"
        )
    if tensor.region is not None:
        return Source(Lies.REGION, position, region=tensor.region)
    return Source(Lies.BODY, position, piece, start, start + found)


def held_bytes(tensor: TensorHead, size: int) -> int:
    """Bytes of a tensor: of its shape, or for text (`size` -1) of its data, as far as the head tells."""
    if size >= 0:
        return size
    return (tensor.data_bytes or 0) if tensor.region is None else tensor.region.byte_size


def outputs_of(head: InferHead, signature: Signature, labels: Labels) -> tuple[Wanted, ...]:
    """What the answer holds, in its order.

    Raises:
        DataError: an output is unknown, asked for twice, or has not the form that is asked for.
    """
    ports = {port.name: index for index, port in enumerate(signature.outputs)}
    wishes = head.outputs or tuple(OutputWish(name, binary=head.binary_output) for name in ports)
    found: dict[str, Wanted] = {}
    for wish in wishes:
        if wish.name not in ports:
            raise DataError(f"the model has no output {wish.name!r}", advice=nearest(wish.name, ports))
        if wish.name in found:
            raise DataError(f"output {wish.name!r} is asked for twice")
        port = signature.outputs[ports[wish.name]]
        datatype = datatype_of(port.dtype)
        if wish.classes and datatype.word in {"BYTES", "BOOL"}:
            raise DataError(f"output {port.name!r} is {datatype.word}: only numbers can be classified")
        if not wish.binary and not wish.classes and wish.region is None:
            check_json(datatype, f"output {port.name!r}", ASK_BINARY)
        found[wish.name] = Wanted(
            index=ports[wish.name],
            port=port,
            datatype=datatype,
            binary=wish.binary,
            classes=wish.classes,
            region=wish.region,
            labels=labels.get(wish.name, ()),
        )
    return tuple(found.values())
