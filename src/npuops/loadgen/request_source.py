"""From an address and the user's wishes to ready requests: asked, encoded, and tried once before any load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from npuops.errors import DataError, OptionError
from npuops.loadgen.answers import Answer, answer_of
from npuops.loadgen.endpoint import Endpoint
from npuops.loadgen.grpc_client import Metadata
from npuops.loadgen.metadata_client import GrpcContact, HttpContact, Model, Reply
from npuops.loadgen.model_inputs import Port, Tensor, npz_tensors, random_tensors, settled_ports
from npuops.loadgen.oip_request import BINARY_EXTENSION, binary_body, http_post, joined, json_body
from npuops.loadgen.proto_wire import infer_request
from npuops.loadgen.results import TensorForm

MOST_REQUEST_BYTES: Final = 256 << 20
"""Of all distinct requests together; fewer distinct inputs are made where they would take more."""
FORMATS: Final = ("auto", "json", "binary")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant of the load; the weight is its share of the requests."""

    name: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """What the requests are.

    Attributes:
        input: a `.npz` of the user's own; random tensors without.
        body: posted as it is, to any address; then nothing is asked about a model.
        content_type: of the body; "" for what it looks like.
        format: `auto` sends binary tensors where the server lists the extension.
        batch: rows, where the first axis is free.
        shapes: whole shapes of inputs.
        distinct: random inputs that take turns.
        headers: on every request.
        tenants: none for requests without a tenant.
        tenant_header: the header that names it.
        verify: keep the first answers, to compare later ones with.
        tolerance: of floats in that comparison, absolute and relative.
    """

    input: Path | None = None
    body: bytes | None = None
    content_type: str = ""
    format: str = "auto"
    batch: int | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    distinct: int = 8
    headers: Mapping[str, str] = field(default_factory=dict)
    tenants: Sequence[Tenant] = ()
    tenant_header: str = "X-Npuops-Tenant"
    verify: bool = False
    tolerance: float = 0.0
    insecure: bool = False
    timeout_s: float = 10.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """Everything that a load process needs to send.

    Attributes:
        wires: by kind (`tenant * inputs + input`): a whole HTTP request, or a gRPC message.
        metadata: by kind, for gRPC.
        expected: the first answer to each input; empty without verification.
    """

    endpoint: Endpoint
    model: str
    form: str
    wires: tuple[bytes, ...]
    metadata: tuple[Metadata, ...]
    inputs: int
    request_bytes: int
    tensors: tuple[TensorForm, ...]
    expected: tuple[Answer, ...]
    tolerance: float
    insecure: bool
    warnings: tuple[str, ...] = ()


def prepare(endpoint: Endpoint, options: RequestOptions) -> Requests:
    """Ask the server about the model, make the requests, and try each input once (without verification, the first).

    Raises:
        ServingError: the server does not answer, or refuses.
        DataError: the input is not the model's.
        OptionError: an option that the model or the protocol does not allow.
    """
    if options.format not in FORMATS:
        raise OptionError(f"no format {options.format!r}", advice=f"known: {', '.join(FORMATS)}")
    if options.body is not None:
        if endpoint.protocol == "grpc":
            raise OptionError("--body is posted over HTTP", advice="leave --protocol grpc out")
        return _prepare_body(endpoint, options, options.body)
    return _prepare_grpc(endpoint, options) if endpoint.protocol == "grpc" else _prepare_http(endpoint, options)


def _prepare_body(endpoint: Endpoint, options: RequestOptions, body: bytes) -> Requests:
    contact = HttpContact(endpoint, options.headers, timeout_s=options.timeout_s, insecure=options.insecure)
    headers = {"Content-Type": options.content_type or guessed_type(body)}
    tenant_headers = _tenant_headers(options)
    reply = contact.post(endpoint.path, joined(headers, options.headers, tenant_headers[0]), body, plain=True)
    wires = [
        http_post(endpoint.path, endpoint.authority, joined(headers, options.headers, tenant), body)
        for tenant in tenant_headers
    ]
    return _requests(endpoint, options, "", "body", wires, [reply], (), ())


def guessed_type(body: bytes) -> str:
    """JSON where the body is that, else bytes."""
    try:
        msgspec.json.decode(body)
    except msgspec.MsgspecError:
        return "application/octet-stream"
    return "application/json"


def _prepare_http(endpoint: Endpoint, options: RequestOptions) -> Requests:
    contact = HttpContact(endpoint, options.headers, timeout_s=options.timeout_s, insecure=options.insecure)
    model = contact.model()
    sets, warnings = _tensor_sets(model, options)
    listed = BINARY_EXTENSION in model.extensions
    form = options.format
    if form == "auto":
        form = "binary" if listed or any(tensor.no_json for tensor in sets[0]) else "json"
    path = f"{endpoint.model_path}/infer"
    bodies: list[tuple[dict[str, str], bytes]] = []
    for tensors in sets:
        if form == "binary":
            body, header_bytes = binary_body(tensors)
            headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(header_bytes)}
        else:
            body, headers = json_body(tensors), {"Content-Type": "application/json"}
        bodies.append((headers, body))
    tenant_headers = _tenant_headers(options)
    replies = [
        contact.post(path, joined(headers, options.headers, tenant_headers[0]), body)
        for headers, body in (bodies if options.verify else bodies[:1])
    ]
    wires = [
        http_post(path, endpoint.authority, joined(headers, options.headers, tenant), body)
        for tenant in tenant_headers
        for headers, body in bodies
    ]
    return _requests(endpoint, options, model.name, form, wires, replies, sets[0], warnings)


def _prepare_grpc(endpoint: Endpoint, options: RequestOptions) -> Requests:
    if options.format == "json":
        raise OptionError("gRPC carries no JSON", advice="leave --format out")
    common = tuple((name.lower(), value) for name, value in options.headers.items())
    binary = next((name for name in (*options.headers, options.tenant_header) if name.lower().endswith("-bin")), None)
    if binary is not None:
        raise OptionError(f"-H {binary}: gRPC takes names that end in -bin for bytes, which a header line cannot give")
    contact = GrpcContact(endpoint, common, timeout_s=options.timeout_s, insecure=options.insecure)
    try:
        model = contact.model()
        sets, warnings = _tensor_sets(model, options)
        messages = [
            infer_request(endpoint.model, endpoint.version, [(t.name, t.datatype, t.shape, t.raw) for t in tensors])
            for tensors in sets
        ]
        tenants = [
            (*common, *((name.lower(), value) for name, value in headers.items()))
            for headers in _tenant_headers(options)
        ]
        replies = [contact.infer(message, tenants[0]) for message in (messages if options.verify else messages[:1])]
    finally:
        contact.close()
    found = _requests(endpoint, options, model.name, "grpc", messages * len(tenants), replies, sets[0], warnings)
    return replace(found, metadata=tuple(tenant for tenant in tenants for _ in messages))


def _requests(
    endpoint: Endpoint,
    options: RequestOptions,
    model: str,
    form: str,
    wires: Sequence[bytes],
    replies: Sequence[Reply],
    tensors: Sequence[Tensor],
    warnings: Sequence[str],
) -> Requests:
    expected: tuple[Answer, ...] = ()
    if options.verify:
        try:
            expected = tuple(answer_of(reply.body, reply.header_bytes, form) for reply in replies)
        except ValueError as error:
            raise DataError(
                f"the first answer cannot be compared with others: {error}", advice="leave --verify out"
            ) from error
    return Requests(
        endpoint=endpoint,
        model=model,
        form=form,
        wires=tuple(wires),
        metadata=(),
        inputs=len(wires) // max(len(options.tenants), 1),
        request_bytes=len(wires[0]),
        tensors=tuple(TensorForm(name=t.name, datatype=t.datatype, shape=t.shape) for t in tensors),
        expected=expected,
        tolerance=options.tolerance,
        insecure=options.insecure,
        warnings=tuple(warnings),
    )


def _tensor_sets(model: Model, options: RequestOptions) -> tuple[list[tuple[Tensor, ...]], tuple[str, ...]]:
    if options.input is not None:
        if options.batch is not None or options.shapes:
            raise OptionError("--input brings its own shapes", advice="leave --batch and --shape out")
        return [npz_tensors(options.input, model.inputs)], ()
    if not model.inputs:
        raise DataError(f"the server does not describe the inputs of {model.name!r}", advice="give --input FILE.npz")
    ports: tuple[Port, ...] = settled_ports(model.inputs, batch=options.batch, shapes=options.shapes)
    first = random_tensors(ports, options.seed)
    size = sum(len(tensor.raw) for tensor in first) or 1
    most = max(MOST_REQUEST_BYTES // (size * max(len(options.tenants), 1)), 1)
    count = min(options.distinct, most)
    rest = [random_tensors(ports, options.seed + place) for place in range(1, count)]
    fewer = f"{count} distinct inputs instead of {options.distinct}: more would take more than 256 MiB"
    return [first, *rest], (fewer,) if count < options.distinct else ()


def _tenant_headers(options: RequestOptions) -> list[dict[str, str]]:
    return [{options.tenant_header: tenant.name} for tenant in options.tenants] or [{}]
