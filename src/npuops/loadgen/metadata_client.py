"""First words with a server: what the model takes, what the server can, and one answer to each input.

Nothing here is timed, so it is plain and patient; its errors are what a user sees when an address is wrong.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from npuops.errors import DataError, NotReadyError, NotServedError, ServingError, TooLargeError, UnauthenticatedError
from npuops.loadgen.endpoint import Endpoint
from npuops.loadgen.grpc_client import OPTIONS, Metadata, code_of, credentials, require_grpc
from npuops.loadgen.model_inputs import Port
from npuops.loadgen.oip_request import joined
from npuops.loadgen.outcomes import code_words
from npuops.loadgen.proto_wire import METHOD, fields, named, numbers, raw, text

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_METADATA_BYTES = 16 << 20
_WORDS = 300
"""Of a server's own words in our error."""
_GRPC_STATUS = {3: 400, 5: 404, 7: 403, 8: 429, 11: 400, 12: 404, 14: 503, 16: 401}
"""gRPC statuses as the HTTP ones that mean the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """As the server describes it; no inputs where it describes none."""

    name: str
    inputs: tuple[Port, ...]
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One good answer; `header_bytes` of its JSON part where tensors lie behind it."""

    body: bytes
    header_bytes: int | None


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


class _Metadata(msgspec.Struct):
    name: str
    inputs: list[_Tensor] | None = None


class _Server(msgspec.Struct):
    extensions: list[str] | None = None


class _Indexed(msgspec.Struct):
    name: str


def tls_context(endpoint: Endpoint, *, insecure: bool) -> ssl.SSLContext | None:
    """For HTTPS; None for HTTP. `insecure` takes any certificate."""
    if not endpoint.tls:
        return None
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class HttpContact:
    """Asks over HTTP; one connection for each question."""

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str], *, timeout_s: float, insecure: bool) -> None:
        self._endpoint = endpoint
        self._headers = dict(headers)
        self._timeout_s = timeout_s
        self._context = tls_context(endpoint, insecure=insecure)

    def model(self) -> Model:
        """The model's metadata, and what the server can.

        Raises:
            NotServedError: no model is named, or none of that name is there.
            ServingError: nobody answers, or not in this protocol.
        """
        endpoint = self._endpoint
        if not endpoint.model:
            self._name_a_model()
        status, body, _ = self._ask("GET", endpoint.model_path)
        if status != 200:
            refuse(status, words_of(body), f"model {endpoint.model!r} at {endpoint.authority}")
        try:
            found = msgspec.json.decode(body, type=_Metadata)
        except msgspec.MsgspecError as error:
            raise ServingError(
                f"{endpoint.model_path} is not metadata of the Open Inference Protocol: {error}",
                advice="for another kind of server give --body FILE: it is posted as it is",
            ) from error
        ports = tuple(Port(name=t.name, datatype=t.datatype, shape=tuple(t.shape)) for t in found.inputs or ())
        return Model(name=found.name, inputs=ports, extensions=self._extensions())

    def post(self, path: str, headers: Mapping[str, str], body: bytes, *, plain: bool = False) -> Reply:
        """One request, and its answer; `plain` for a body of the user's own.

        Raises:
            ServingError: none, or an error; its class tells which.
        """
        status, answer, header_bytes = self._ask("POST", path, body, headers)
        if not 200 <= status < 300:
            what = f"the first request to {self._endpoint.authority}{path}"
            refuse(status, words_of(answer), what, plain=plain)
        return Reply(body=answer, header_bytes=header_bytes)

    def _extensions(self) -> tuple[str, ...]:
        status, body, _ = self._ask("GET", f"{self._endpoint.prefix}/v2")
        try:
            found = msgspec.json.decode(body, type=_Server) if status == 200 else _Server()
        except msgspec.MsgspecError:
            found = _Server()  # a gateway may answer with a page of its own: then the plain protocol is spoken
        return tuple(found.extensions or ())

    def _name_a_model(self) -> NoReturn:
        """Only some servers can list their models; then their names are the advice."""
        prefix = self._endpoint.path.partition("/v2")[0].rstrip("/")
        status, body, _ = self._ask("POST", f"{prefix}/v2/repository/index", b"{}")
        try:
            names = [one.name for one in msgspec.json.decode(body, type=list[_Indexed])] if status == 200 else []
        except msgspec.MsgspecError:
            names = []
        there = f"; here are {', '.join(sorted(set(names)))}" if names else ""
        raise NotServedError(
            f"{self._endpoint.url} names no model{there}",
            advice="end the address in /v2/models/MODEL; for another kind of server give --body FILE",
        )

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, int | None]:
        endpoint = self._endpoint
        connection = (
            http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=self._timeout_s)
            if self._context is None
            else http.client.HTTPSConnection(
                endpoint.host, endpoint.port, timeout=self._timeout_s, context=self._context
            )
        )
        try:
            connection.request(method, path, body, joined(self._headers, headers or {}))
            answer = connection.getresponse()
            length = answer.getheader("Inference-Header-Content-Length") or ""
            data = answer.read() if method == "POST" else answer.read(_MOST_METADATA_BYTES)
            if answer.status in _REDIRECTS:
                data = f"it redirects to {answer.getheader('Location') or 'nowhere'}".encode()
        except TimeoutError as error:
            raise ServingError(
                f"{endpoint.authority} did not answer within {self._timeout_s:g} s", advice="is it up? see --timeout"
            ) from error
        except (OSError, http.client.HTTPException, UnicodeError) as error:  # the last: a host that is no host name
            raise ServingError(
                f"no answer from {endpoint.authority}: {error or type(error).__name__}",
                advice="is the server up, and is this its HTTP port?",
            ) from error
        finally:
            connection.close()
        return answer.status, data, int(length) if length.isdigit() else None


class GrpcContact:
    """Asks over gRPC."""

    def __init__(self, endpoint: Endpoint, metadata: Metadata, *, timeout_s: float, insecure: bool) -> None:
        self._grpc = require_grpc()
        self._endpoint = endpoint
        self._metadata = metadata
        self._timeout_s = timeout_s
        self._channel = (
            self._grpc.secure_channel(endpoint.authority, credentials(self._grpc, insecure=insecure), options=OPTIONS)
            if endpoint.tls
            else self._grpc.insecure_channel(endpoint.authority, options=OPTIONS)
        )

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def model(self) -> Model:
        """As `HttpContact.model`."""
        endpoint = self._endpoint
        if not endpoint.model:
            raise NotServedError(f"{endpoint.url} names no model", advice="grpc://HOST:PORT/MODEL")
        message = self._ask("ModelMetadata", named(endpoint.model, endpoint.version), f"model {endpoint.model!r}")
        try:
            return _model(message)
        except ValueError as error:
            raise ServingError(f"{endpoint.authority} answers with broken metadata: {error}") from error

    def infer(self, message: bytes, metadata: Metadata) -> Reply:
        """One request, and its answer.

        Raises:
            ServingError: none, or an error; its class tells which.
        """
        body = self._ask("ModelInfer", message, f"the first request to {self._endpoint.authority}", metadata)
        return Reply(body=body, header_bytes=None)

    def _ask(self, method: str, message: bytes, what: str, metadata: Metadata | None = None) -> bytes:
        call = self._channel.unary_unary(f"{METHOD}{method}")
        try:
            answer: bytes = call(
                message, timeout=self._timeout_s, metadata=self._metadata if metadata is None else metadata
            )
        except self._grpc.RpcError as error:
            status, details = error.code().value[0], error.details() or ""
            code = code_of(status, details)
            if code < 0 or status == 4:
                raise ServingError(
                    f"no answer from {self._endpoint.authority}: {details[:_WORDS]}",
                    advice="is the server up, and is this its gRPC port?",
                ) from error
            refuse(_GRPC_STATUS.get(status, 500), f"{code_words(code)}: {details[:_WORDS]}", what)
        return answer


def _model(message: bytes) -> Model:
    name, ports = "", []
    for number, value in fields(message):
        if number == 1:
            name = text(value)
        elif number == 4:
            port: dict[int, Any] = {1: "", 2: "", 3: []}
            for inner, part in fields(raw(value)):
                if inner == 3:
                    port[3] += numbers(part)
                elif inner in port:
                    port[inner] = text(part)
            ports.append(Port(name=port[1], datatype=port[2], shape=tuple(port[3])))
    return Model(name=name, inputs=tuple(ports), extensions=())


def words_of(body: bytes) -> str:
    """The server's own words in an error's body."""
    try:
        found = msgspec.json.decode(body, type=dict[str, Any]).get("error")
    except msgspec.MsgspecError:
        found = None
    return str(found or body.decode("utf-8", "replace")).strip()[:_WORDS]


def refuse(status: int, words: str, what: str, *, plain: bool = False) -> NoReturn:
    """Raise what a status means before anything could be measured; `plain` for a body of the user's own."""
    said = f"{what}: {status}{f': {words}' if words else ''}"
    match status:
        case 400 | 415 | 422:
            options = "--body, --content-type" if plain else "--input, --shape, --batch, --format"
            raise DataError(said, advice=f"the server does not take this input: see {options}")
        case 401 | 403:
            raise UnauthenticatedError(said, advice="give --api-key (or $NPUOPS_API_KEY), or a header with -H")
        case 404 | 405:
            path = "a model of the Open Inference Protocol takes a --body at /v2/models/MODEL/infer"
            raise NotServedError(
                said, advice=f"look at the address: {path if plain else '/v2/models/MODEL[/versions/VERSION]'}"
            )
        case 413:
            raise TooLargeError(said, advice="a smaller --batch, or raise the server's limit")
        case 429 | 503 | 504:
            raise NotReadyError(said, advice="the server is busy or not ready: try again in a while")
        case _ if status in _REDIRECTS:
            raise NotServedError(said, advice="give that address: a load generator follows no redirect")
        case _:
            raise ServingError(said, advice="the server's own log tells more")
