"""What a client hears of an error: the status in HTTP and in gRPC, and the body."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import orjson

from npuops.errors import (
    BusyError,
    CancelledError,
    DataError,
    DeadlineError,
    ForbiddenError,
    NotReadyError,
    NotServedError,
    NpuopsError,
    OptionError,
    OverloadedError,
    QuotaError,
    RunError,
    TooLargeError,
    UnauthenticatedError,
)
from npuops.server.places import names_alone


class GrpcStatus(IntEnum):
    """The codes of gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Status:
    """How an error goes out.

    Attributes:
        http: the status code.
        grpc: the same in gRPC.
        retry_after_s: whole seconds for the `Retry-After` header; None where asking again does not help.
    """

    http: int
    grpc: GrpcStatus
    retry_after_s: int | None = None


STATUS_OF: Final[Mapping[type[NpuopsError], Status]] = {
    DataError: Status(400, GrpcStatus.INVALID_ARGUMENT),
    OptionError: Status(400, GrpcStatus.INVALID_ARGUMENT),
    UnauthenticatedError: Status(401, GrpcStatus.UNAUTHENTICATED),
    ForbiddenError: Status(403, GrpcStatus.PERMISSION_DENIED),
    NotServedError: Status(404, GrpcStatus.NOT_FOUND),
    TooLargeError: Status(413, GrpcStatus.RESOURCE_EXHAUSTED),
    QuotaError: Status(429, GrpcStatus.RESOURCE_EXHAUSTED),
    CancelledError: Status(499, GrpcStatus.CANCELLED),
    RunError: Status(500, GrpcStatus.INTERNAL),
    OverloadedError: Status(503, GrpcStatus.UNAVAILABLE),
    NotReadyError: Status(503, GrpcStatus.UNAVAILABLE),
    DeadlineError: Status(504, GrpcStatus.DEADLINE_EXCEEDED),
}
"""The nearest class in an error's own line of ancestors counts; 499 is what proxies call a client that went away."""

INTERNAL: Final = Status(500, GrpcStatus.INTERNAL)
"""Everything else: it is not the client's doing."""


def status_of(error: BaseException) -> Status:
    """The status of any error.

    Raises:
        Nothing: an error that is not ours is 500.
    """
    for kind in type(error).__mro__:
        found = STATUS_OF.get(kind)
        if found is not None:
            if isinstance(error, BusyError):
                return Status(found.http, found.grpc, max(1, math.ceil(error.retry_after_s)))
            return found
    return INTERNAL


def words_of(error: BaseException) -> str:
    """The message, and the advice after a semicolon. Of a foreign error only that it happened.

    A foreign error's own text may hold paths, or a customer's data: it belongs into the log. Of the server's own
    failures clients do not hear where files lie; what is wrong with a request is told in the client's own words.
    """
    if not isinstance(error, NpuopsError):
        return f"the server failed ({type(error).__name__}); its log says more"
    words = f"{error.message}; {error.advice}" if error.advice else error.message
    return words if status_of(error).http < 500 else names_alone(words)


def error_body(error: BaseException) -> bytes:
    """`{"error": "message; advice"}` as the protocol wants it. Lone surrogates become question marks."""
    return orjson.dumps({"error": words_of(error).encode("utf-8", "replace").decode()})
