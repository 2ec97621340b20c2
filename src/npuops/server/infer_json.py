"""Requests whose tensors stand in the JSON: the data become the protocol's bytes, exactly or not at all.

simdjson parses, and hands numbers over as one buffer of doubles or 64-bit integers; no Python object is made for an
element. It flattens whatever is nested, so the nesting is checked here: each row's length, and, with one count of all
`[` in the text, that no row holds a deeper list. Of a text whose frame is known only the data are parsed
(`json_frame`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from math import prod
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import orjson
import simdjson
from numpy.typing import NDArray

from npuops.errors import DataError
from npuops.runtime.bytes_tensor import join_elements
from npuops.runtime.signature import Shape
from npuops.server.datatypes import Datatype
from npuops.server.infer_plan import InferPlan
from npuops.server.infer_request import InferHead, read_head
from npuops.server.json_frame import Frame, Frames
from npuops.server.plan_cache import PlanCache

KEEP_PARSER_BYTES: Final = 4 * 1024 * 1024
"""A parser keeps the memory of its longest text: after one longer than this, a new parser begins."""

LOOK_AT: Final = 1_000_000
"""Elements that are searched for the one an error is about."""

_PROXIES: Final = (simdjson.Object, simdjson.Array)
_WIDE: Final = {"d": np.dtype("<f8"), "i": np.dtype("<i8"), "u": np.dtype("<u8")}


class JsonRequest(NamedTuple):
    """A request as read.

    Attributes:
        plan: for all requests that differ in data and id alone.
        data: of each input at its position in the request; None where its data are elsewhere.
        id: as JSON text; empty where it has none.
    """

    plan: InferPlan
    data: Sequence[bytes | None]
    id: bytes


class JsonReader:
    """Reads requests, one at a time. **Not thread-safe**: simdjson's parser is used again and again."""

    def __init__(self) -> None:
        self._parser = simdjson.Parser()
        self._frames: WeakKeyDictionary[PlanCache, Frames] = WeakKeyDictionary()

    def read(self, text: bytes, plans: PlanCache) -> JsonRequest:
        """A whole JSON request, or the head of one that has binary data behind it as well.

        Raises:
            DataError: not JSON, not a request, not one that fits the model, or data that are not exactly what
                datatype and shape say; the message names the tensor.
            TooLargeError: the inputs have too many bytes.
        """
        frames = self._frames.get(plans)
        if frames is None:
            frames = self._frames[plans] = Frames()
        try:
            known = frames.find(text)
            found = None if known is None else _read_framed(self._parser, *known)
            if found is None:
                if known is not None:
                    self._parser = simdjson.Parser()  # as below: whatever was wrong, the whole text tells it
                found = _read(self._parser, text, plans)
                if found.plan.has_json and known is None:
                    frames.learn(text, found.plan, found.id)
        except BaseException:
            self._parser = simdjson.Parser()  # the error's traceback holds the old one's document
            raise
        if len(text) > KEEP_PARSER_BYTES:
            self._parser = simdjson.Parser()
        return found


def _read_framed(parser: Any, frame: Frame, pieces: Sequence[bytes], identity: bytes) -> JsonRequest | None:
    """The request, or None where it must be read as a whole: that tells what is wrong."""
    plan = frame.plan
    data: list[bytes | None] = [None] * len(plan.sources)
    try:
        for piece, (position, name, datatype, shape) in zip(pieces, frame.inputs, strict=True):
            if not piece.startswith(b"["):
                return None  # a byte order mark is skipped in front of a text, and wrong within one
            array = parser.parse(piece)
            rows = [array]
            if piece.find(b"[", 1) >= 0:  # all are numbers, so every bracket is a list
                rows, arrays = _rows(array, shape, name)
                if _count(piece) != arrays:
                    return None
            data[position] = _numbers(array, rows, datatype, shape, name)
            del array, rows  # the parser gives the next one its memory
    except (ValueError, RuntimeError, DataError):
        return None
    return JsonRequest(plan, data, identity)


def _read(parser: Any, text: bytes, plans: PlanCache) -> JsonRequest:
    try:
        root = parser.parse(text)
    except (ValueError, RuntimeError) as error:
        raise DataError(f"the request is not valid JSON: {_words(error)}") from error
    if not isinstance(root, simdjson.Object):
        raise DataError("the request is not a JSON object")
    identity = b""
    key: list[object] = []
    tensors: Any = ()
    for name in root:
        value = root[name]  # items() would make lists of everything
        if name == "inputs":
            tensors = value
            key.append(isinstance(value, simdjson.Array))
        elif name == "id" and isinstance(value, str):
            identity = orjson.dumps(value)
        else:
            key += (name, _key(value))
    data = [_read_tensor(tensor, key) for tensor in tensors] if isinstance(tensors, simdjson.Array) else []
    plan = plans.of_key(tuple(key), lambda: _head(root))
    if not plan.has_json:
        return JsonRequest(plan, (None,) * len(data), identity)
    brackets = _count(text) - identity.count(b"[") - _brackets(key)
    return JsonRequest(plan, _data(plan, data, brackets, sure=b"\\" not in text), identity)


def _read_tensor(tensor: Any, key: list[object]) -> Any:
    """An input's data as simdjson has them; everything else goes to the key."""
    if not isinstance(tensor, simdjson.Object):
        key.append(_key(tensor))
        return None
    found = None
    for name in tensor:
        key.append(name)
        if name == "data":
            found = tensor[name]
        else:
            key.append(_key(tensor[name]))
    return found


def _key(value: Any) -> object:
    if type(value) is str:
        return value
    if isinstance(value, _PROXIES):
        return value.mini
    return (type(value), value)  # else True, 1 and 1.0 would be one key


def _count(text: bytes) -> int:
    """Of `[` in the text: flat data have a few far apart, where `find` is ten times as fast as `count`."""
    at = -1
    for found in range(32):
        at = text.find(b"[", at + 1)
        if at < 0:
            return found
    return 32 + text.count(b"[", at + 1)


def _brackets(key: list[object]) -> int:
    """In the text of the head, the list of inputs included."""
    found = 1
    for part in key:
        if isinstance(part, str):
            found += part.count("[")
        elif isinstance(part, bytes):
            found += part.count(b"[")
    return found


def _head(root: Any) -> InferHead:
    """The head, built once for each key; of the data only that they are there."""
    document: dict[str, Any] = {}
    for name in root:
        value = root[name]
        if name == "inputs" and isinstance(value, simdjson.Array):
            document[name] = [_tensor(each) for each in value]
        elif name != "id" or not isinstance(value, str):  # an id that is a text is not the plan's
            document[name] = _plain(value)
    return read_head(document)


def _tensor(value: Any) -> Any:
    if not isinstance(value, simdjson.Object):
        return _plain(value)
    return {name: None if name == "data" else _plain(value[name]) for name in value}


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


def _data(plan: InferPlan, given: Sequence[Any], brackets: int, *, sure: bool) -> list[bytes | None]:
    """The data of all inputs whose data are JSON.

    Args:
        plan: of the request.
        given: what stands under `data` of each input, in the request's order.
        brackets: `[` in the text that are not part of the head: those of data, besides texts.
        sure: no escapes are in the text, among which a `[` would have been missed.
    """
    found: list[bytes | None] = [None] * len(given)
    checked: list[tuple[str, list[Any]]] = []
    for position, name, datatype, shape in plan.json_inputs:
        rows, arrays = _rows(given[position], shape, name)
        brackets -= arrays
        if datatype.word == "BYTES":
            texts = _texts(rows, shape, name)
            brackets -= sum(text.count(b"[") for text in texts)
            found[position] = join_elements(texts)
        elif datatype.word == "BOOL":
            found[position] = _flags(rows, shape, name)
        else:
            found[position] = _numbers(given[position], rows, datatype, shape, name)
            checked.append((name, rows))
    if brackets or not sure:
        for name, rows in checked:
            _no_deeper(rows, name)
    return found


def _rows(data: Any, shape: Shape, name: str) -> tuple[list[Any], int]:
    """The innermost lists, and how many lists there are; flat data are one row.

    Raises:
        DataError: no list, or nested otherwise than the shape says.
    """
    if not isinstance(data, simdjson.Array):
        raise DataError(f"'data' of input {name!r} must be a list, flat or nested as its shape")
    level: list[Any] = [data]
    if not len(data) or not isinstance(data[0], simdjson.Array):
        return level, 1
    arrays = 1
    for axis, size in enumerate(shape):
        if axis:
            level = [each for row in level for each in row]
            arrays += len(level)
        for each in level:
            if not isinstance(each, simdjson.Array):
                raise DataError(f"'data' of input {name!r} is nested {axis} deep at one place and deeper at another")
            if len(each) != size:
                raise DataError(
                    f"'data' of input {name!r} has a list of {len(each)} at depth {axis}, its shape {list(shape)} "
                    f"has {size} there",
                    advice="nest it as the shape says, or give it flat",
                )
    return level, arrays


def _no_deeper(rows: Sequence[Any], name: str) -> None:
    for each in chain.from_iterable(rows):
        if isinstance(each, simdjson.Array):
            raise DataError(f"'data' of input {name!r} is nested deeper than its shape")


def _numbers(data: Any, rows: Sequence[Any], datatype: Datatype, shape: Shape, name: str) -> bytes:
    wire = datatype.wire
    word = "d" if wire.kind == "f" else "u" if datatype.word == "UINT64" else "i"
    try:
        values: NDArray[Any] = np.frombuffer(data.as_buffer(of_type=word), _WIDE[word])
    except (TypeError, ValueError) as error:
        raise _misfit(rows, datatype, name) from error
    if values.size != prod(shape):
        raise _wrong_count(values.size, shape, name)
    if values.dtype == wire:
        return values.tobytes()
    if wire.kind == "f":
        try:
            with np.errstate(over="raise"):
                return values.astype(wire).tobytes()
        except FloatingPointError as error:
            raise _misfit(rows, datatype, name) from error
    limits = np.iinfo(wire)
    if values.size and (values.min() < limits.min or values.max() > limits.max):
        raise _misfit(rows, datatype, name)
    return values.astype(wire).tobytes()


def _flags(rows: Sequence[Any], shape: Shape, name: str) -> bytes:
    values = _scalars(rows, shape, name)
    for at, value in enumerate(values):
        if not isinstance(value, bool):
            raise DataError(f"element {at} of input {name!r} is {_shown(value)}: BOOL takes true and false")
    return bytes(values)


def _texts(rows: Sequence[Any], shape: Shape, name: str) -> list[bytes]:
    values = _scalars(rows, shape, name)
    for at, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(
                f"element {at} of input {name!r} is {_shown(value)}: BYTES takes text",
                advice="send bytes that are not text as binary data",
            )
    return [value.encode() for value in values]


def _scalars(rows: Sequence[Any], shape: Shape, name: str) -> list[Any]:
    total = sum(len(row) for row in rows)
    if total != prod(shape):
        raise _wrong_count(total, shape, name)
    return list(chain.from_iterable(rows))


def _wrong_count(found: int, shape: Shape, name: str) -> DataError:
    return DataError(f"'data' of input {name!r} has {found} elements, its shape {list(shape)} has {prod(shape)}")


def _misfit(rows: Sequence[Any], datatype: Datatype, name: str) -> DataError:
    """The error about the first element that the datatype does not hold."""
    elements: Iterator[Any] = islice(chain.from_iterable(rows), LOOK_AT)
    for at, value in enumerate(elements):
        if not _fits(value, datatype):
            return DataError(f"element {at} of input {name!r} is {_shown(value)}, which is not {datatype.word}")
    return DataError(f"'data' of input {name!r} has an element that is not {datatype.word}")


def _fits(value: Any, datatype: Datatype) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if datatype.wire.kind == "f":
        with np.errstate(over="ignore"):
            return bool(np.isfinite(np.float64(value).astype(datatype.wire)))
    if isinstance(value, float):
        return False
    limits = np.iinfo(datatype.wire)
    return bool(limits.min <= value <= limits.max)


def _shown(value: Any) -> str:
    if isinstance(value, simdjson.Array):
        return "a list"
    if isinstance(value, simdjson.Object):
        return "an object"
    text = orjson.dumps(value).decode()
    return text if len(text) <= 40 else f"{text[:37]}..."


def _words(error: Exception) -> str:
    """What simdjson says, without its name for it."""
    words = str(error)
    return words.partition(": ")[2] or words
