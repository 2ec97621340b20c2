"""What a request's head means to one model version: worked out once for each distinct head, then used by all alike.

A plan belongs to one model version. `PlanCache` keeps them by the head's bytes, without its `id`, which differs with
every request of some clients. The hot path is then: look the plan up, `plan.parts(body)`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import accumulate
from math import prod
from typing import Any, Final

from npuops.errors import DataError, TooLargeError, nearest
from npuops.runtime.bytes_tensor import LENGTH_BYTES, check_elements
from npuops.runtime.job import Bytes, Fallback
from npuops.runtime.signature import Form, Port, Signature, form_of
from npuops.server.datatypes import check_bool, datatype_of
from npuops.server.infer_request import InferHead, Parameters, RegionRef, count
from npuops.server.infer_sources import (
    Labels,
    Lies,
    Source,
    Wanted,
    check_datatype,
    held_bytes,
    outputs_of,
    positions_of,
    raw_shape,
    source_of,
    starts_of,
)

PRIORITY_LIMIT: Final = 2**31
TIMEOUT_LIMIT_US: Final = 2**53
"""285 years; every clock can add it."""

_FALLBACKS: Final[Mapping[str, Fallback]] = {"forbid": "forbid", "allow": "allow"}
_OWN_PARAMETERS: Final = frozenset({"npuops_fallback"})


class InferPlan:
    """How to run all requests with one head.

    Attributes:
        form: the shapes, for the runtime.
        sources: of each input, in the model's order.
        body_bytes: of the binary data behind the JSON.
        is_binary: every input lies in the body: `parts` is enough; else `gather`.
        has_json: an input's data stand in the JSON, so the head is no key.
        json_inputs: of those: the position in the request, name, datatype and shape.
        wanted: the outputs, in the order of the answer.
        binary_outputs: positions in the model's order of the outputs that go out as bytes, as they go out.
        answers_binary: some output goes out as bytes behind the JSON.
        answers_json: some output goes out within the JSON.
        is_fixed: the JSON of an answer depends on nothing but shapes and device, so it may be kept.
        uses_regions: an input or output lies in shared memory.
        timeout_us: from arrival; 0 where the client gave none.
        priority: the client's number, 1 first as Triton counts; 0 where it gave none.
        fallback: the client's word on the model's fallback device.
        parameters: the request's, for shard keys and the like.
        id: the request's `id` as JSON text; empty where it has none, or where the caller cut it off.
        cache: for whatever the front end derives from plan and completion; bounded by `remember`.
    """

    __slots__ = (
        "_checks",
        "_spans",
        "_whole",
        "answers_binary",
        "answers_json",
        "binary_outputs",
        "body_bytes",
        "cache",
        "fallback",
        "form",
        "has_json",
        "id",
        "is_binary",
        "is_fixed",
        "json_inputs",
        "parameters",
        "priority",
        "signature",
        "sources",
        "timeout_us",
        "uses_regions",
        "wanted",
    )

    def __init__(
        self,
        signature: Signature,
        form: Form,
        sources: tuple[Source, ...],
        body_bytes: int,
        wanted: tuple[Wanted, ...],
        parameters: Parameters,
    ) -> None:
        self.signature = signature
        self.form = form
        self.sources = sources
        self.body_bytes = body_bytes
        self.wanted = wanted
        self.parameters = parameters
        self.id = b""
        self.cache: dict[Hashable, Any] = {}
        self.is_binary = all(source.lies is Lies.BODY for source in sources)
        self.json_inputs = tuple(
            (source.position, port.name, datatype_of(port.dtype), shape)
            for source, port, shape in zip(sources, signature.inputs, form.shapes, strict=True)
            if source.lies is Lies.JSON
        )
        self.has_json = bool(self.json_inputs)
        self.binary_outputs = tuple(each.index for each in wanted if each.binary)
        self.answers_binary = bool(self.binary_outputs)
        self.answers_json = any(not each.binary and each.region is None for each in wanted)
        self.is_fixed = not self.answers_json and all(each.port.item_bytes and not each.classes for each in wanted)
        self.uses_regions = any(each.region for each in wanted) or any(source.region for source in sources)
        self.timeout_us = count(parameters, "timeout", "the request", limit=TIMEOUT_LIMIT_US) or 0
        self.priority = count(parameters, "priority", "the request", limit=PRIORITY_LIMIT) or 0
        self.fallback = _fallback(parameters)
        self._spans = tuple((source.start, source.stop) for source in sources)
        self._checks = tuple(
            (at, port) for at, port in enumerate(signature.inputs) if port.dtype == "bool" or not port.item_bytes
        )
        self._whole = self.is_binary and len(sources) == 1 and not self._checks

    def parts(self, body: memoryview) -> list[memoryview]:
        """Each input's bytes, in the model's order, where all are in the body; they are the body's memory.

        Args:
            body: what follows the JSON, as bytes.

        Raises:
            DataError: the body is not `body_bytes` long, or BOOL or BYTES data are malformed.
        """
        if len(body) != self.body_bytes:
            raise self._wrong_body(len(body))
        if self._whole:
            return [body]
        parts = [body[start:stop] for start, stop in self._spans]
        for at, port in self._checks:
            self._check(parts[at], at, port)
        return parts

    def gather(
        self,
        body: memoryview,
        data: Sequence[Bytes | None] = (),
        read: Callable[[RegionRef], Bytes] | None = None,
    ) -> list[Bytes]:
        """Each input's bytes, in the model's order, wherever they are.

        Args:
            body: what follows the JSON, as bytes.
            data: of the inputs whose data are JSON, at their position in the request (`JsonReader.read`).
            read: bytes of a place in shared memory; None where that is off.

        Raises:
            DataError: as `parts`; or shared memory is off.
        """
        if len(body) != self.body_bytes:
            raise self._wrong_body(len(body))
        parts: list[Bytes] = []
        for at, source in enumerate(self.sources):
            if source.lies is Lies.BODY:
                parts.append(body[source.start : source.stop])
            elif source.lies is Lies.RAW_TEXT:
                parts.append(len(body).to_bytes(LENGTH_BYTES, "little") + bytes(body))
            elif source.region is not None:
                parts.append(_read(source.region, read))
            else:
                part = data[source.position]
                if part is None:
                    raise DataError(f"input {self.signature.inputs[at].name!r} has no data")
                parts.append(part)
        for at, port in self._checks:
            if self.sources[at].lies in {Lies.BODY, Lies.REGION}:  # what we made of JSON is sound
                self._check(parts[at], at, port)
        return parts

    def arrange(self, pieces: Sequence[Bytes], read: Callable[[RegionRef], Bytes] | None = None) -> list[Bytes]:
        """As `gather`, for a protocol whose inputs come apart: gRPC's raw contents.

        Args:
            pieces: of each input that does not lie in shared memory, in the request's order.
            read: bytes of a place in shared memory; None where that is off.

        Raises:
            DataError: the number of pieces or the length of one is wrong, or as `gather`.
        """
        wanted = sum(source.region is None for source in self.sources)
        if len(pieces) != wanted:
            raise DataError(f"the request has {wanted} inputs with data, and the data of {len(pieces)}")
        parts: list[Bytes] = []
        for port, source in zip(self.signature.inputs, self.sources, strict=True):
            if source.region is not None:
                parts.append(_read(source.region, read))
                continue
            piece = pieces[source.piece]
            if len(piece) != source.stop - source.start:
                raise DataError(
                    f"input {port.name!r} has {len(piece)} bytes of data, its shape has {source.stop - source.start}"
                )
            parts.append(piece)
        for at, port in self._checks:
            self._check(parts[at], at, port)
        return parts

    def remember(self, key: Hashable, value: Any, *, limit: int = 64) -> None:
        """Keep something derived; a plan that sees more than `limit` keys (changing output shapes) starts anew."""
        if len(self.cache) >= limit:
            self.cache.clear()
        self.cache[key] = value

    def _check(self, part: Bytes, at: int, port: Port) -> None:
        if port.item_bytes:
            check_bool(part, port.name)
        else:
            check_elements(part, prod(self.form.shapes[at]), port.name)

    def _wrong_body(self, found: int) -> DataError:
        return DataError(
            f"{found} bytes of tensor data follow the JSON, the inputs' binary_data_size sum to {self.body_bytes}",
            advice="Inference-Header-Content-Length is the length of the JSON alone",
        )


def _read(region: RegionRef, read: Callable[[RegionRef], Bytes] | None) -> Bytes:
    if read is None:
        raise DataError("shared memory is switched off on this server", advice="send the tensors in the request")
    return read(region)


def plan_of(
    head: InferHead, signature: Signature, *, max_request_bytes: int, labels: Labels | None = None
) -> InferPlan:
    """What a head means to a model.

    Args:
        head: of a request.
        signature: of the model version.
        max_request_bytes: most bytes of all inputs together.
        labels: for the classification extension.

    Raises:
        DataError: a name, datatype, shape, size or parameter that does not fit; the message names it.
        TooLargeError: the inputs have more than `max_request_bytes`.
    """
    positions = positions_of(head.inputs, signature.inputs)
    tensors = [head.inputs[position] for position in positions]
    for port, tensor in zip(signature.inputs, tensors, strict=True):
        check_datatype(port, tensor)
    form = form_of(signature, [tensor.shape for tensor in tensors])
    starts, body_bytes = starts_of(head.inputs)
    pieces = list(accumulate((tensor.region is None for tensor in head.inputs), initial=0))
    sources = tuple(
        source_of(tensor, size, position, pieces[position], starts[position])
        for tensor, size, position in zip(tensors, form.sizes, positions, strict=True)
    )
    total = sum(held_bytes(tensor, size) for tensor, size in zip(tensors, form.sizes, strict=True))
    _check_total(total, max_request_bytes)
    wanted = outputs_of(head, signature, labels or {})
    return InferPlan(signature, form, sources, body_bytes, wanted, head.parameters)


def raw_plan(signature: Signature, body_bytes: int, *, max_request_bytes: int) -> InferPlan:
    """The plan of a body that is the model's single input, without any JSON (`Inference-Header-Content-Length: 0`).

    The batch axis counts as 1; at most one other axis may be free, and follows from the size. A BYTES input takes the
    whole body as its one element. All outputs go out as bytes.

    Raises:
        DataError: the model has other than one input, or no shape fits the size.
        TooLargeError: more than `max_request_bytes`.
    """
    if len(signature.inputs) != 1:
        raise DataError(
            f"a request without a JSON head needs a model with one input, this one has {len(signature.inputs)}",
            advice="name the inputs in a JSON head, and give its length in Inference-Header-Content-Length",
        )
    _check_total(body_bytes, max_request_bytes)
    port = signature.inputs[0]
    shape = raw_shape(port, body_bytes, batched=signature.batched)
    form = form_of(signature, [shape])
    lies = Lies.BODY if port.item_bytes else Lies.RAW_TEXT
    source = Source(lies, 0, 0, 0, body_bytes)
    wanted = outputs_of(InferHead(id="", inputs=(), binary_output=True), signature, {})
    return InferPlan(signature, form, (source,), body_bytes, wanted, {})


def _check_total(total: int, limit: int) -> None:
    if total > limit:
        raise TooLargeError(f"the inputs have {total} bytes, this server takes {limit}", advice="send fewer rows")


def _fallback(parameters: Parameters) -> Fallback:
    for key in parameters:
        if key.startswith("npuops_") and key not in _OWN_PARAMETERS:
            raise DataError(f"the request has the unknown parameter {key[:80]!r}", advice=nearest(key, _OWN_PARAMETERS))
    if parameters.get("sequence_id") not in {None, 0, ""}:
        raise DataError("sequences are not served: each request stands for itself", advice="leave sequence_id away")
    word = parameters.get("npuops_fallback")
    if word is None:
        return ""
    if not isinstance(word, str) or word not in _FALLBACKS:
        raise DataError(f"parameter 'npuops_fallback' is {word!r}", advice="it may be 'forbid' or 'allow'")
    return _FALLBACKS[word]
