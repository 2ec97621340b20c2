"""A `ModelInferRequest` as the nouns that both front ends share: its head, and the bytes of its inputs.

Requests of one client differ in their tensors and their `id`, and hardly in anything else. `Skeletons` keeps what a
message means by its bytes *without* those: where they lie follows from the other bytes and the length alone, as a
message's fields are read from the front, each telling its length. So the hot path parses no protobuf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError

from npuops.errors import DataError
from npuops.runtime.bytes_tensor import join_elements
from npuops.runtime.job import Bytes
from npuops.server.datatypes import Datatype, datatype_named
from npuops.server.infer_request import (
    SIZE_LIMIT,
    TENSOR_LIMIT,
    InferHead,
    OutputWish,
    Parameter,
    TensorHead,
    check_shape,
    count,
    read_region,
)
from npuops.server.inference_pb import ModelInferRequest

Spans = tuple[tuple[int, int], ...]

_IDENTITY: Final = 3
_RAW_CONTENTS: Final = 7
_SKELETON_BYTES: Final = 8192
_SKELETONS: Final = 1024
_LAYOUTS: Final = 4
"""Of one length; more would be tried in vain."""

_FIELD_OF: Final = {
    "BOOL": "bool_contents",
    **{f"INT{bits}": "int_contents" for bits in (8, 16, 32)},
    "INT64": "int64_contents",
    **{f"UINT{bits}": "uint_contents" for bits in (8, 16, 32)},
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class Asked:
    """What a message says besides its `id` and its tensors' data.

    Attributes:
        model, version: as it says them; an empty version is the default one.
        key: equal for messages whose plan is the same.
        memo: the last plan, for whom it was made; kept by who uses it.
    """

    __slots__ = ("_request", "_sizes", "key", "memo", "model", "version")

    def __init__(self, request: Any, sizes: tuple[int, ...]) -> None:
        """`request`: without its `id` and data. `sizes`: of the data that it had, in bytes."""
        self.model: str = request.model_name
        self.version: str = request.model_version
        self._request, self._sizes = request, sizes
        self.key = (Asked, request.SerializeToString(deterministic=True), sizes)
        self.memo: Any = None

    def head(self) -> InferHead:
        """The head, for a plan.

        Raises:
            DataError: a parameter, shape or region that cannot be.
        """
        request = self._request
        sizes = iter(self._sizes)
        return InferHead(
            id="",
            inputs=tuple(_tensor(tensor, sizes) for tensor in request.inputs),
            outputs=tuple(_wish(output) for output in request.outputs),
            parameters=parameters_of(request),
            binary_output=True,
        )


class Layout:
    """Where the parts of a message lie that differ from request to request.

    Attributes:
        spans: first and behind the last byte of each, in order.
        identity: which of them is the `id`; -1 for none. The others are raw contents.
    """

    __slots__ = ("identity", "known", "spans")

    def __init__(self, spans: Spans, identity: int) -> None:
        self.spans, self.identity = spans, identity
        self.known: dict[bytes, Asked] = {}
        """By the rest of the message."""

    def rest(self, message: bytes) -> bytes:
        """The message without these parts."""
        spans = self.spans
        if len(spans) == 1:
            start, stop = spans[0]
            return message[:start] if stop == len(message) else message[:start] + message[stop:]
        pieces: list[bytes] = []
        at = 0
        for start, stop in spans:
            pieces.append(message[at:start])
            at = stop
        pieces.append(message[at:])
        return b"".join(pieces)

    def pieces(self, message: bytes) -> list[memoryview]:
        """The raw contents."""
        view = memoryview(message)
        found = [view[start:stop] for start, stop in self.spans]
        if self.identity >= 0:
            del found[self.identity]
        return found

    def identity_of(self, message: bytes) -> str:
        """The `id`.

        Raises:
            DataError: it is not UTF-8.
        """
        if self.identity < 0:
            return ""
        start, stop = self.spans[self.identity]
        try:
            return message[start:stop].decode()
        except UnicodeDecodeError as error:
            raise _no_request() from error


class Skeletons:
    """What messages mean, by their bytes without `id` and raw contents."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._layouts: dict[int, list[Layout]] = {}
        self._size = 0

    def read(self, message: bytes) -> tuple[Asked, str, Sequence[Bytes]]:
        """What it asks, its `id`, and the data of its inputs that are not in shared memory, in its order.

        Raises:
            DataError: no `ModelInferRequest`, or data that contradict their datatype.
        """
        for layout in self._layouts.get(len(message), ()):
            found = layout.known.get(layout.rest(message))
            if found is not None:
                return found, layout.identity_of(message), layout.pieces(message)
        asked, identity, pieces, is_raw = parse(message)
        layout_found = layout_of(message) if is_raw else None
        if layout_found is not None:
            self._keep(message, layout_found, asked)
        return asked, identity, pieces

    def _keep(self, message: bytes, layout: Layout, asked: Asked) -> None:
        key = layout.rest(message)
        if len(key) > _SKELETON_BYTES:
            return
        if self._size >= _SKELETONS:
            self._layouts.clear()
            self._size = 0
        layouts = self._layouts.setdefault(len(message), [])
        same = [known for known in layouts if (known.spans, known.identity) == (layout.spans, layout.identity)]
        if not same:
            if len(layouts) >= _LAYOUTS:
                layouts.pop(0)
            layouts.append(layout)
            same = [layout]
        same[0].known[key] = asked
        self._size += 1


def parse(message: bytes) -> tuple[Asked, str, Sequence[Bytes], bool]:
    """As `Skeletons.read`, without looking anything up; and whether the data are raw contents.

    Raises:
        DataError: as there.
    """
    try:
        request = ModelInferRequest.FromString(message)
    except DecodeError as error:
        raise _no_request() from error
    if len(request.inputs) > TENSOR_LIMIT or len(request.outputs) > TENSOR_LIMIT:
        raise DataError(f"the request has more than {TENSOR_LIMIT} tensors")
    identity: str = request.id
    request.ClearField("id")
    raw = list(request.raw_input_contents)
    request.ClearField("raw_input_contents")
    typed = [tensor.name for tensor in request.inputs if tensor.HasField("contents")]
    if raw and typed:
        raise DataError(
            f"the request has raw_input_contents, and contents of input {typed[0]!r}",
            advice="give all data in raw_input_contents, or all in contents",
        )
    owing = [tensor for tensor in request.inputs if "shared_memory_region" not in tensor.parameters]
    for tensor in request.inputs:
        if "shared_memory_region" in tensor.parameters and tensor.HasField("contents"):
            raise DataError(f"input {tensor.name!r} has contents, and lies in shared memory", advice="give one of them")
    if raw and len(raw) != len(owing):
        raise DataError(f"the request has {len(owing)} inputs with data, and {len(raw)} raw_input_contents")
    pieces = raw or [typed_bytes(tensor) for tensor in owing]
    for tensor in request.inputs:
        tensor.ClearField("contents")
    return Asked(request, tuple(map(len, pieces))), identity, pieces, bool(raw)


def layout_of(message: bytes) -> Layout | None:
    """Of a sound message; None where it has a form that is not worth the trouble."""
    spans: list[tuple[int, int]] = []
    identities: list[int] = []
    at, size = 0, len(message)
    while at < size:
        tag, at = _varint(message, at)
        kind, field = tag & 7, tag >> 3
        if kind == 2:
            length, at = _varint(message, at)
            if field in {_IDENTITY, _RAW_CONTENTS}:
                identities += [len(spans)] if field == _IDENTITY else []
                spans.append((at, at + length))
            at += length
        elif kind == 0:
            _, at = _varint(message, at)
        elif kind in {1, 5}:
            at += 8 if kind == 1 else 4
        else:
            return None
    if at != size or not spans or len(identities) > 1:
        return None
    return Layout(tuple(spans), identities[0] if identities else -1)


def typed_bytes(tensor: Any) -> bytes:
    """The typed contents of an input as the protocol's bytes.

    Raises:
        DataError: they are of another datatype, too few or too many, or beyond the datatype's range.
    """
    datatype = datatype_named(tensor.datatype, tensor.name)
    contents = tensor.contents
    wanted = _FIELD_OF.get(datatype.word)
    if wanted is None:
        raise DataError(f"input {tensor.name!r} is {datatype.word}, which has no typed contents", advice="send it raw")
    for field, _ in contents.ListFields():
        if field.name != wanted:
            raise DataError(f"input {tensor.name!r} is {datatype.word}, its data are in {field.name}", advice=wanted)
    values = getattr(contents, wanted)
    shape = _shape(tensor)
    elements = 1
    for size in shape:
        elements *= size
    if len(values) != elements:
        raise DataError(
            f"input {tensor.name!r} has {len(values)} elements, its shape {list(shape)} has {elements}",
            advice="give the data in contents, or in raw_input_contents",
        )
    return join_elements(values) if datatype.word == "BYTES" else _packed(values, datatype, tensor.name)


def parameters_of(owner: Any) -> dict[str, Parameter]:
    """The parameters of a request or tensor: any of the five kinds.

    Raises:
        DataError: one has no value.
    """
    found: dict[str, Parameter] = {}
    for key, value in owner.parameters.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is None:
            raise DataError(f"parameter {key[:80]!r} has no value")
        found[key] = getattr(value, kind)
    return found


def _packed(values: Any, datatype: Datatype, name: str) -> bytes:
    wide = np.array(values, np.float64 if datatype.wire.kind == "f" else None)
    if datatype.wire.kind in "iu" and wide.size:
        limits = np.iinfo(datatype.wire)
        if int(wide.min()) < limits.min or int(wide.max()) > limits.max:
            raise DataError(f"input {name!r} has a value that is not {datatype.word}")
    return wide.astype(datatype.wire).tobytes()


def _tensor(tensor: Any, sizes: Any) -> TensorHead:
    owner = f"input {tensor.name!r}"
    region = read_region(parameters_of(tensor), owner)
    size = None if region is not None else next(sizes)
    return TensorHead(tensor.name, tensor.datatype, _shape(tensor), size, region)


def _wish(output: Any) -> OutputWish:
    owner = f"output {output.name!r}"
    parameters = parameters_of(output)
    classes = count(parameters, "classification", owner, limit=SIZE_LIMIT) or 0
    region = read_region(parameters, owner)
    if region is not None and classes:
        raise DataError(f"{owner} asks for 'classification', which shared memory does not hold")
    return OutputWish(output.name, binary=region is None, classes=classes, region=region)


def _shape(tensor: Any) -> tuple[int, ...]:
    shape = tuple(tensor.shape)
    check_shape(shape, f"input {tensor.name!r}")
    return shape


def _no_request() -> DataError:
    return DataError("the message is no ModelInferRequest", advice="check the client's protocol files")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
