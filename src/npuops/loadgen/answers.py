"""What a server answered, as arrays, and whether it is what it answered before for the same input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from npuops.loadgen.model_inputs import DTYPES
from npuops.loadgen.proto_wire import fields, numbers, raw, text
from npuops.loadgen.results import Agreement

_KNOWN_BODIES: Final = 64
"""Equal bodies are not parsed twice; a server that puts an identifier into each would fill the memory."""
_FLOATS: Final = {6: "<f4", 7: "<f8"}
"""Fields of `InferTensorContents` with numbers of a fixed width."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Output:
    """One tensor of an answer; what has no numbers (text, unknown contents) is an array of bytes or objects."""

    name: str
    shape: tuple[int, ...]
    values: NDArray[Any]


Answer = tuple[Output, ...]


class _Parameters(msgspec.Struct):
    binary_data_size: int | None = None


class _JsonOutput(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: Any = None
    parameters: _Parameters | None = None


class _JsonAnswer(msgspec.Struct):
    outputs: list[_JsonOutput]


_DECODER: Final = msgspec.json.Decoder(_JsonAnswer)


def http_answer(body: bytes, header_bytes: int | None) -> Answer:
    """An answer of the protocol's REST form.

    Args:
        body: whole.
        header_bytes: length of its JSON part, from the header; None where all is JSON.

    Raises:
        ValueError: not such an answer.
    """
    try:
        parsed = _DECODER.decode(body if header_bytes is None else body[:header_bytes])
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    at = header_bytes or 0
    outputs = []
    for output in parsed.outputs:
        size = output.parameters.binary_data_size if output.parameters is not None else None
        if size is None:
            values = _flat(output.data, output.datatype)
        else:
            if not 0 <= size <= len(body) - at:
                raise ValueError(f"output {output.name!r} ends beyond the body")
            values = _from_bytes(body[at : at + size], output.datatype)
            at += size
        outputs.append(Output(name=output.name, shape=tuple(output.shape), values=values))
    return tuple(outputs)


def grpc_answer(message: bytes) -> Answer:
    """A `ModelInferResponse`.

    Raises:
        ValueError: not protobuf.
    """
    heads: list[dict[int, Any]] = []
    contents: list[bytes] = []
    for number, value in fields(message):
        if number == 5:
            head: dict[int, Any] = {1: "", 2: "", 3: [], 5: b""}
            for inner, part in fields(raw(value)):
                if inner in {1, 2}:
                    head[inner] = text(part)
                elif inner == 3:
                    head[3] += numbers(part)
                elif inner == 5:
                    head[5] = raw(part)
            heads.append(head)
        elif number == 6:
            contents.append(raw(value))
    if contents and len(contents) != len(heads):
        raise ValueError(f"{len(heads)} outputs and {len(contents)} raw contents")
    return tuple(
        Output(
            name=head[1],
            shape=tuple(head[3]),
            values=_from_bytes(contents[place], head[2]) if contents else _typed(head[5]),
        )
        for place, head in enumerate(heads)
    )


def body_answer(body: bytes) -> Answer:
    """Any other body: its bytes."""
    return (Output(name="body", shape=(len(body),), values=np.frombuffer(body, np.uint8)),)


def _typed(contents: bytes) -> NDArray[Any]:
    for number, dtype in _FLOATS.items():
        # Packed or not, and in as many pieces as the sender liked.
        pieces = [value for found, value in fields(contents) if found == number and isinstance(value, bytes)]
        if pieces:
            return np.frombuffer(b"".join(pieces), dtype)
    return np.frombuffer(contents, np.uint8)


def _flat(data: Any, datatype: str) -> NDArray[Any]:
    kind = DTYPES.get(datatype, "")
    try:
        if kind in {"", "string", "bfloat16"}:
            return np.array(data, object).reshape(-1)
        return np.array(data, kind).reshape(-1)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"data that is not {datatype}") from error


def _from_bytes(data: bytes, datatype: str) -> NDArray[Any]:
    kind = DTYPES.get(datatype, "")
    if kind == "bfloat16" and len(data) % 2 == 0:
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    if kind in {"", "string", "bfloat16"} or len(data) % np.dtype(kind).itemsize:
        return np.frombuffer(data, np.uint8)
    return np.frombuffer(data, np.dtype(kind).newbyteorder("<"))


def difference(one: Answer, other: Answer, tolerance: float) -> tuple[str, float | None]:
    """What differs beyond the tolerance, in words or "", and the largest difference of a number that could be told.

    Args:
        one: the first answer.
        other: a later one.
        tolerance: how far two floats may be apart, absolutely and relative to the larger; 0 for not at all.
    """
    names = [output.name for output in one]
    if names != [output.name for output in other]:
        return f"the outputs were {names}, then {[output.name for output in other]}", None
    words, largest = "", None
    for before, after in zip(one, other, strict=True):
        if before.shape != after.shape or before.values.shape != after.values.shape:
            return f"{before.name!r} was {list(before.shape)}, then {list(after.shape)}", largest
        if prod(before.values.shape) == 0 or np.array_equal(before.values, after.values):
            continue
        if before.values.dtype.kind != "f" or after.values.dtype.kind != "f":
            words = words or f"{before.name!r} differs"
            continue
        first, second = before.values.astype(np.float64), after.values.astype(np.float64)
        apart = np.abs(first - second)
        finite = apart[np.isfinite(apart)]
        largest = max(largest or 0.0, float(finite.max(initial=0.0)))
        if not np.allclose(first, second, rtol=tolerance, atol=tolerance, equal_nan=True):
            words = words or f"{before.name!r} differs by {float(finite.max(initial=0.0)):.3g}"
    return words, largest


class Checker:
    """Compares answers with the first one for the same input, cheaply where bodies are equal byte for byte."""

    def __init__(self, expected: Sequence[Answer], form: str, tolerance: float) -> None:
        self._expected = expected
        self._form = form
        self._tolerance = tolerance
        self._known: list[dict[bytes, bool]] = [{} for _ in expected]
        self._compared = self._differing = 0
        self._largest: float | None = None
        self._words = ""

    def check(self, place: int, body: bytes, header_bytes: int | None) -> None:
        """Count one answer to input number `place`."""
        self._compared += 1
        known = self._known[place]
        same = known.get(body)
        if same is None:
            same = self._same(place, body, header_bytes)
            if len(known) < _KNOWN_BODIES:
                known[body] = same
        self._differing += not same

    def _same(self, place: int, body: bytes, header_bytes: int | None) -> bool:
        try:
            words, largest = difference(
                self._expected[place], answer_of(body, header_bytes, self._form), self._tolerance
            )
        except ValueError as error:
            words, largest = f"an answer that cannot be read: {error}", None
        if largest is not None:
            self._largest = max(self._largest or 0.0, largest)
        self._words = self._words or words
        return not words

    def taken(self) -> Agreement:
        """What was counted since the last call."""
        found = Agreement(
            compared=self._compared,
            differing=self._differing,
            largest_difference=self._largest,
            first_difference=self._words,
        )
        self._compared = self._differing = 0
        self._largest, self._words = None, ""
        return found


def answer_of(body: bytes, header_bytes: int | None, form: str) -> Answer:
    """By the form that was sent: `grpc`, `body`, or the protocol's own.

    Raises:
        ValueError: not of that form.
    """
    if form == "grpc":
        return grpc_answer(body)
    return body_answer(body) if form == "body" else http_answer(body, header_bytes)


def agreed(parts: Sequence[Agreement]) -> Agreement:
    """Of several processes together."""
    told = [part.largest_difference for part in parts if part.largest_difference is not None]
    return Agreement(
        compared=sum(part.compared for part in parts),
        differing=sum(part.differing for part in parts),
        largest_difference=max(told, default=None),
        first_difference=next((part.first_difference for part in parts if part.first_difference), ""),
    )
