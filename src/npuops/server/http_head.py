"""The head of an HTTP request: parsed once by llhttp (httptools), then known by its bytes.

A client sends the same head with each of its requests, so the second one costs a look-up instead of a parse. What
follows from the head alone (path, tenant, limits) is found with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httptools

from npuops.errors import DataError, TooLargeError

_HEADERS_LIMIT: Final = 128
_ABSOLUTE: Final = re.compile(r"https?://[^/]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A request without its body.

    Attributes:
        method: in capitals.
        path: percent-encoded, as it came, without the query, and without scheme and host where they were there.
        headers: lower-case name → value; repeated ones are joined with a comma.
        content_length: bytes of the body; 0 where there is none, -1 where it comes in chunks.
        encoding: of the body, in lower case; "" where it comes as it is.
        json_bytes: of the JSON before binary tensors; None without the header of that extension.
        keep_alive: the connection stays. Never with HTTP/1.0: it would need a header of its own in each answer.
        expects_continue: the client waits for "100 Continue" before the body.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    content_length: int
    encoding: str
    json_bytes: int | None
    keep_alive: bool
    expects_continue: bool

    @property
    def is_chunked(self) -> bool:
        """The body's size is not known before its end."""
        return self.content_length < 0


class _Collector:
    """What the parser calls."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[str, str] = {}
        self.fields = 0
        self.done = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        self.fields += 1
        if self.fields > _HEADERS_LIMIT:
            raise TooLargeError(f"the request has more than {_HEADERS_LIMIT} header fields", advice="send fewer")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        self.done = True


def parse_head(data: bytes) -> Head:
    """A head, to its empty line.

    Raises:
        DataError: it is not HTTP/1, or contradicts itself (a length and chunks, two lengths, two hosts).
        TooLargeError: too many fields.
    """
    collector = _Collector()
    parser: Any = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass_on = collector.done  # we answer in HTTP/1.1, which a client that offers more must take
        if not pass_on:
            raise DataError("the request's head is not HTTP/1.1") from None
    except httptools.HttpParserError as error:
        cause = error.__context__
        if isinstance(cause, TooLargeError):
            raise cause from None
        raise DataError(f"the request is not HTTP/1.1: {error}") from error
    version = parser.get_http_version()
    if not collector.done or version not in {"1.0", "1.1"}:
        raise DataError("the request's head is not HTTP/1.1")
    return _head_of(parser.get_method().decode("latin-1"), collector, is_11=version == "1.1")


def _head_of(method: str, collector: _Collector, *, is_11: bool) -> Head:
    headers = collector.headers
    if (is_11 and "host" not in headers) or "," in headers.get("host", ""):
        # Two servers in a row that choose different ones of two hosts see different requests.
        raise DataError("a request has one Host header", advice="name the server in it")
    path, _, query = collector.url.decode("latin-1").partition("?")
    chunked = "transfer-encoding" in headers
    if chunked and (not is_11 or headers["transfer-encoding"].lower() != "chunked"):
        raise DataError(f"transfer encoding {headers['transfer-encoding'][:40]!r} is not taken", advice="send chunked")
    length = -1 if chunked else _number(headers, "content-length") or 0
    encoding = headers.get("content-encoding", "").strip().lower()
    json_bytes = _number(headers, "inference-header-content-length")
    if json_bytes is not None and not encoding and 0 <= length < json_bytes:
        raise DataError(
            f"the body has {length} bytes, and Inference-Header-Content-Length says {json_bytes}",
            advice="it is the length of the JSON alone",
        )
    # llhttp's own word on keep-alive is void once it saw the end of a request without a body.
    wishes = {word.strip() for word in headers.get("connection", "").lower().split(",")}
    return Head(
        method=method,
        path=_origin_form(path),
        query=query,
        headers=headers,
        content_length=length,
        encoding="" if encoding == "identity" else encoding,
        json_bytes=json_bytes,
        keep_alive=is_11 and "close" not in wishes,
        expects_continue=is_11 and headers.get("expect", "").lower() == "100-continue",
    )


def _origin_form(target: str) -> str:
    """Without `http://host:port`, which proxies are sent, and which every server must take."""
    if target.startswith("/"):
        return target
    found = _ABSOLUTE.match(target)
    return target if found is None else target[found.end() :] or "/"


def _number(headers: Mapping[str, str], name: str) -> int | None:
    value = headers.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        raise DataError(f"header {name} is {value[:40]!r}, it must be a number of bytes")
    return int(value)
