"""The answer to an inference request: a JSON head, and behind it the outputs that go out as bytes.

Where every output is bytes (or goes to shared memory) the head depends on nothing but shapes and device, and is made
once. Values that JSON does not have (NaN, infinity, bytes that are not UTF-8) are an error that advises bytes: Triton
writes `NaN`, which is not JSON, and many clients break on it; `null` would be a wrong value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from npuops.errors import DataError
from npuops.runtime.bytes_tensor import split_elements
from npuops.runtime.job import Bytes, Completion
from npuops.runtime.signature import Shape
from npuops.server.classification import class_shape, classify
from npuops.server.datatypes import DATATYPES
from npuops.server.infer_plan import InferPlan
from npuops.server.infer_sources import ASK_BINARY, Wanted

_TEXT: Final = DATATYPES["BYTES"]
ID_OPENING: Final = b'{"id":'
"""Before the request's id in a head that has one."""


class Answer(NamedTuple):
    """A response body: `head`, then `parts`.

    Attributes:
        head: JSON; its length is the header `Inference-Header-Content-Length` where `plan.answers_binary`.
        parts: of the outputs that go out as bytes; they may be the completion's memory.
    """

    head: bytes
    parts: Sequence[Bytes]


def answer(plan: InferPlan, name: str, version: str, completion: Completion, identity: bytes = b"") -> Answer:
    """The response to any request, besides outputs in shared memory (`shared_memory.Held` writes those).

    Args:
        plan: of the request.
        name: of the model.
        version: of the model.
        completion: from the runtime, in the model's order.
        identity: the request's id as JSON text.

    Raises:
        DataError: an output has a value that JSON does not have.
    """
    if plan.is_fixed:
        key = (_fixed_head, completion.shapes, completion.device, completion.fell_back)
        head = plan.cache.get(key)
        if head is None:
            head = _fixed_head(plan, name, version, completion)
            plan.remember(key, head)
        return Answer(with_id(head, identity), binary_parts(plan, completion))
    outputs: list[bytes] = []
    parts: list[Bytes] = []
    for wanted in plan.wanted:
        text, part = _output(plan, wanted, completion)
        outputs.append(text)
        if part is not None:
            parts.append(part)
    head = b"".join((_opening(plan, name, version, completion), b",".join(outputs), b"]}"))
    return Answer(with_id(head, identity), parts)


def response_head(
    plan: InferPlan, name: str, version: str, completion: Completion, identity: bytes = b""
) -> bytes | None:
    """The JSON head where it may be kept for all completions with these shapes, device and fallback, else None."""
    return with_id(_fixed_head(plan, name, version, completion), identity) if plan.is_fixed else None


def binary_parts(plan: InferPlan, completion: Completion) -> list[Bytes]:
    """The bytes behind the head of a plan that `is_fixed`; they are the completion's memory."""
    outputs = completion.outputs
    return [outputs[index] for index in plan.binary_outputs]


def response_json(plan: InferPlan, name: str, version: str, completion: Completion, identity: bytes = b"") -> bytes:
    """The response to a request that asks for no bytes.

    Raises:
        DataError: an output has a value that JSON does not have.
    """
    return answer(plan, name, version, completion, identity).head


def with_id(head: bytes, identity: bytes) -> bytes:
    """The head with the request's `id`, given as JSON text; empty for none."""
    return b"".join((ID_OPENING, identity, b",", memoryview(head)[1:])) if identity else head


def _opening(plan: InferPlan, name: str, version: str, completion: Completion) -> bytes:
    key = (_opening, completion.device, completion.fell_back)
    found: bytes | None = plan.cache.get(key)
    if found is None:
        document = {
            "model_name": name,
            "model_version": version,
            "parameters": {"npuops_device": completion.device, "npuops_fallback": completion.fell_back},
        }
        found = orjson.dumps(document)[:-1] + b',"outputs":['
        plan.remember(key, found)
    return found


def _fixed_head(plan: InferPlan, name: str, version: str, completion: Completion) -> bytes:
    outputs = [_described(wanted, completion) for wanted in plan.wanted]
    return _opening(plan, name, version, completion) + b",".join(outputs) + b"]}"


def _described(wanted: Wanted, completion: Completion) -> bytes:
    """An output whose data are not in the JSON."""
    size = len(completion.outputs[wanted.index])
    parameters: dict[str, Any] = {"binary_data_size": size}
    if wanted.region is not None:
        parameters = {
            "shared_memory_region": wanted.region.region,
            "shared_memory_byte_size": size,
            **({"shared_memory_offset": wanted.region.offset} if wanted.region.offset else {}),
        }
    return _described_as(wanted.port.name, wanted.datatype.word, completion.shapes[wanted.index], parameters)


def _described_as(name: str, word: str, shape: Shape, parameters: dict[str, Any]) -> bytes:
    return orjson.dumps({"name": name, "datatype": word, "shape": shape, "parameters": parameters})


def _output(plan: InferPlan, wanted: Wanted, completion: Completion) -> tuple[bytes, Bytes | None]:
    """One output's JSON, and its bytes where it goes out as bytes."""
    part = completion.outputs[wanted.index]
    shape = completion.shapes[wanted.index]
    name = wanted.port.name
    if wanted.classes:
        batched = plan.signature.batched
        part = classify(part, wanted.datatype, shape, wanted.classes, batched=batched, labels=wanted.labels)
        shape = class_shape(shape, wanted.classes, batched=batched)
        if wanted.binary:
            return _described_as(name, _TEXT.word, shape, {"binary_data_size": len(part)}), part
        return _with_data(plan, name, _TEXT.word, shape, _texts(part, name)), None
    if wanted.binary:
        return _described(wanted, completion), part
    if wanted.region is not None:
        return _described(wanted, completion), None
    data = _texts(part, name) if wanted.datatype is _TEXT else _numbers(part, wanted, name)
    return _with_data(plan, name, wanted.datatype.word, shape, data), None


def _with_data(plan: InferPlan, name: str, word: str, shape: Shape, data: bytes) -> bytes:
    key = (_with_data, name, shape)
    prefix: bytes | None = plan.cache.get(key)
    if prefix is None:
        prefix = orjson.dumps({"name": name, "datatype": word, "shape": shape})[:-1] + b',"data":'
        plan.remember(key, prefix)
    return b"".join((prefix, data, b"}"))


def _numbers(part: Bytes, wanted: Wanted, name: str) -> bytes:
    values = np.frombuffer(part, wanted.datatype.wire)
    text = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    if values.dtype.kind == "f" and b"n" in text:  # null, as numbers have no other letter than e
        at = int(np.argmin(np.isfinite(values)))
        raise DataError(f"element {at} of output {name!r} is {values[at]}, which JSON does not have", advice=ASK_BINARY)
    return text


def _texts(part: Bytes, name: str) -> bytes:
    try:
        return orjson.dumps([element.decode() for element in split_elements(part)])
    except UnicodeDecodeError as error:
        raise DataError(
            f"output {name!r} has bytes that are not UTF-8, which JSON does not have", advice=ASK_BINARY
        ) from error
