"""What a client hears of an error."""

from __future__ import annotations

import grpc
import orjson
import pytest

from npuops import errors
from npuops.server.status import GrpcStatus, error_body, status_of


@pytest.mark.parametrize(
    ("error", "http", "code"),
    [
        (errors.DataError("m"), 400, GrpcStatus.INVALID_ARGUMENT),
        (errors.UnauthenticatedError("m"), 401, GrpcStatus.UNAUTHENTICATED),
        (errors.NotServedError("m"), 404, GrpcStatus.NOT_FOUND),
        (errors.TooLargeError("m"), 413, GrpcStatus.RESOURCE_EXHAUSTED),
        (errors.QuotaError("m"), 429, GrpcStatus.RESOURCE_EXHAUSTED),
        (errors.CancelledError("m"), 499, GrpcStatus.CANCELLED),
        (errors.RunError("m"), 500, GrpcStatus.INTERNAL),
        (errors.DeviceLostError("m"), 500, GrpcStatus.INTERNAL),
        (errors.OverloadedError("m"), 503, GrpcStatus.UNAVAILABLE),
        (errors.NotReadyError("m"), 503, GrpcStatus.UNAVAILABLE),
        (errors.DeadlineError("m"), 504, GrpcStatus.DEADLINE_EXCEEDED),
        (ZeroDivisionError("m"), 500, GrpcStatus.INTERNAL),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else "",
)
def test_each_class_has_its_status(error: Exception, http: int, code: GrpcStatus) -> None:
    found = status_of(error)
    assert (found.http, found.grpc) == (http, code)


def test_a_busy_server_says_in_whole_seconds_when_to_come_back() -> None:
    assert status_of(errors.OverloadedError("m", retry_after_s=0.2)).retry_after_s == 1
    assert status_of(errors.QuotaError("m", retry_after_s=2.1)).retry_after_s == 3
    assert status_of(errors.DataError("m")).retry_after_s is None


def test_the_body_holds_message_and_advice() -> None:
    assert orjson.loads(error_body(errors.DataError("it broke", advice="mend it"))) == {"error": "it broke; mend it"}
    assert orjson.loads(error_body(errors.DataError("it broke"))) == {"error": "it broke"}
    assert orjson.loads(error_body(errors.DataError("\ud800"))) == {"error": "?"}


def test_a_foreign_error_tells_nothing_of_its_text() -> None:
    body = error_body(ValueError("/home/secret"))
    assert b"secret" not in body
    assert b"ValueError" in body


def test_the_codes_are_grpcs() -> None:
    assert {each.name: each.value for each in GrpcStatus} == {each.name: each.value[0] for each in grpc.StatusCode}
