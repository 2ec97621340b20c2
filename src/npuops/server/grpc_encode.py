"""A completion as the bytes of a `ModelInferResponse`: a head that is kept, and the outputs behind it, raw.

Protobuf's fields may stand in any order and raw contents may follow the rest, so an answer is put together from pieces;
the outputs are not copied into a message first.
"""

from __future__ import annotations

from typing import Any

from npuops.runtime.job import Bytes, Completion
from npuops.runtime.signature import Shape
from npuops.server.classification import class_shape, classify
from npuops.server.infer_plan import InferPlan
from npuops.server.infer_sources import Wanted
from npuops.server.inference_pb import ModelInferResponse

_ID = b"\x1a"
_RAW_CONTENTS = b"\x32"
_STREAM_ERROR = b"\x0a"
_STREAM_RESPONSE = b"\x12"
FINAL_WISH = "triton_enable_empty_final_response"
_FINAL = "triton_final_response"


def varint(number: int) -> bytes:
    """A length as protobuf writes it."""
    if number < 128:
        return bytes((number,))
    found = bytearray()
    while number >= 128:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def response_parts(plan: InferPlan, name: str, version: str, completion: Completion, identity: str) -> list[Bytes]:
    """The message in pieces; some are the completion's memory.

    Args:
        plan: of the request.
        name: of the model.
        version: of the model.
        completion: from the runtime, in the model's order.
        identity: the request's id.

    Raises:
        DataError: an output cannot be classified.
    """
    key = (ModelInferResponse, completion.shapes, completion.device, completion.fell_back)
    kept = plan.cache.get(key)
    if kept is None:
        kept = _head(plan, name, version, completion)
        if plan.is_fixed:
            plan.remember(key, kept)
    head, tags = kept
    parts: list[Bytes] = [head]
    if identity:
        text = identity.encode()
        parts.append(_ID + varint(len(text)) + text)
    outputs = completion.outputs
    if plan.is_fixed:
        for tag, index in tags:
            parts.append(tag)
            if index >= 0:
                parts.append(outputs[index])
        return parts
    for wanted in plan.wanted:
        part = _part(plan, wanted, completion)
        parts += (_RAW_CONTENTS + varint(len(part)), part)
    return parts


def stream_response(parts: list[Bytes]) -> bytes:
    """A response as one message of a stream."""
    return b"".join((_STREAM_RESPONSE, varint(sum(map(len, parts))), *parts))


def stream_error(message: str, identity: str) -> bytes:
    """An error as one message of a stream; the stream goes on."""
    text, number = message.encode("utf-8", "replace"), identity.encode()
    inner = _ID + varint(len(number)) + number if number else b""
    return b"".join((_STREAM_ERROR, varint(len(text)), text, _STREAM_RESPONSE, varint(len(inner)), inner))


def _head(plan: InferPlan, name: str, version: str, completion: Completion) -> tuple[bytes, list[tuple[bytes, int]]]:
    """All but the raw contents; and of those that are the same each time their tag and length, and which output."""
    response = ModelInferResponse(model_name=name, model_version=version)
    response.parameters["npuops_device"].string_param = completion.device
    response.parameters["npuops_fallback"].bool_param = completion.fell_back
    if plan.parameters.get(FINAL_WISH) is True:
        response.parameters[_FINAL].bool_param = True
    tags: list[tuple[bytes, int]] = []
    has_raw = any(wanted.region is None for wanted in plan.wanted)
    for wanted in plan.wanted:
        size = len(completion.outputs[wanted.index])
        _describe(response.outputs.add(), plan, wanted, completion.shapes[wanted.index], size)
        if wanted.region is None:
            tags.append((_RAW_CONTENTS + varint(size), wanted.index))
        elif has_raw:
            tags.append((_RAW_CONTENTS + b"\0", -1))  # clients count outputs and raw contents alike
    return response.SerializeToString(deterministic=True), tags


def _describe(tensor: Any, plan: InferPlan, wanted: Wanted, shape: Shape, size: int) -> None:
    tensor.name = wanted.port.name
    tensor.datatype = "BYTES" if wanted.classes else wanted.datatype.word
    if wanted.classes:
        shape = class_shape(shape, wanted.classes, batched=plan.signature.batched)
    tensor.shape.extend(shape)
    if wanted.region is not None:
        tensor.parameters["shared_memory_region"].string_param = wanted.region.region
        tensor.parameters["shared_memory_byte_size"].int64_param = size
        tensor.parameters["shared_memory_offset"].int64_param = wanted.region.offset


def _part(plan: InferPlan, wanted: Wanted, completion: Completion) -> Bytes:
    part = completion.outputs[wanted.index]
    if wanted.region is not None:
        return b""
    if not wanted.classes:
        return part
    shape = completion.shapes[wanted.index]
    batched = plan.signature.batched
    return classify(part, wanted.datatype, shape, wanted.classes, batched=batched, labels=wanted.labels)
