"""The head of an HTTP request: parsed once by llhttp (httptools), then known by its bytes.

A client sends the same head with each of its requests, so the second one costs a look-up instead of a parse. What
follows from the head alone (path, tenant, limits) is found with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httptools

from npuops.errors import DataError, TooLargeError

_HEADERS_LIMIT: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A request without its body.

    Attributes:
        method: in capitals.
        path: percent-encoded, as it came, without the query.
        headers: lower-case name → value; repeated ones are joined with a comma.
        content_length: bytes of the body; 0 where there is none, -1 where it comes in chunks.
        json_bytes: of the JSON before binary tensors; None without the header of that extension.
        keep_alive: the connection stays.
        expects_continue: the client waits for "100 Continue" before the body.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    content_length: int
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
        self.done = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        if len(self.headers) >= _HEADERS_LIMIT:
            raise TooLargeError(f"more than {_HEADERS_LIMIT} header fields")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        self.done = True


def parse_head(data: bytes) -> Head:
    """A head, to its empty line.

    Raises:
        DataError: it is not HTTP/1, or contradicts itself (a length and chunks, two lengths).
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
    if not collector.done:
        raise DataError("the request's head is not HTTP/1.1")
    headers = collector.headers
    path, _, query = collector.url.decode("latin-1").partition("?")
    chunked = "transfer-encoding" in headers
    if chunked and headers["transfer-encoding"].lower() != "chunked":
        raise DataError(f"transfer encoding {headers['transfer-encoding']!r} is not taken", advice="send chunked")
    return Head(
        method=parser.get_method().decode("latin-1"),
        path=path,
        query=query,
        headers=headers,
        content_length=-1 if chunked else _number(headers, "content-length") or 0,
        json_bytes=_number(headers, "inference-header-content-length"),
        keep_alive=bool(parser.should_keep_alive()),
        expects_continue=headers.get("expect", "").lower() == "100-continue",
    )


def _number(headers: Mapping[str, str], name: str) -> int | None:
    value = headers.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        raise DataError(f"header {name} is {value[:40]!r}, it must be a number of bytes")
    return int(value)
