"""Responses as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from npuops.errors import NotServedError, UnauthenticatedError
from npuops.runtime.job import Bytes
from npuops.server.status import error_body, status_of

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
OK_JSON: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
"""What `response_head` gives for the most frequent answer, its body's length left open: building it takes 2 µs."""

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}


class MethodError(NotServedError):
    """The path exists, and takes another method.

    Attributes:
        allowed: the methods that it takes.
    """

    def __init__(self, path: str, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{path[:200]} takes {' or '.join(allowed)}, not {method}")
        self.allowed = allowed


class NotOfferedError(NotServedError):
    """A call of the protocol's extensions that this server answers with nothing but what to do instead."""


def response(
    status: int,
    body: Bytes,
    *,
    content_type: str = JSON,
    headers: Mapping[str, str] | None = None,
    keep_alive: bool = True,
    head_only: bool = False,
) -> bytes:
    """A whole response; `head_only` leaves the body away but tells its length (HEAD)."""
    head = response_head(status, len(body), content_type=content_type, headers=headers, keep_alive=keep_alive)
    return head if head_only else b"".join((head, body))


def response_head(
    status: int,
    body_bytes: int,
    *,
    content_type: str = JSON,
    headers: Mapping[str, str] | None = None,
    keep_alive: bool = True,
) -> bytes:
    """All before the body."""
    fields = {"Content-Type": content_type, "Content-Length": str(body_bytes), **(headers or {})}
    if not keep_alive:
        fields["Connection"] = "close"
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}", *(f"{key}: {fields[key]}" for key in fields)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def error_response(
    error: BaseException, *, keep_alive: bool, status: int | None = None, head_only: bool = False
) -> bytes:
    """An error as the protocol wants it: status, `{"error": …}`, and when to come back."""
    found = status_of(error)
    code = found.http
    headers: dict[str, str] = {}
    if found.retry_after_s is not None:
        headers["Retry-After"] = str(found.retry_after_s)
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, MethodError):
        code = 405
        headers["Allow"] = ", ".join(error.allowed)
    elif isinstance(error, NotOfferedError):
        code = 501
    body = error_body(error)
    return response(status or code, body, headers=headers, keep_alive=keep_alive, head_only=head_only)
