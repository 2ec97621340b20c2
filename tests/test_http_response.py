from __future__ import annotations

import json

import pytest

from npuops.errors import (
    CancelledError,
    DataError,
    DeadlineError,
    NotReadyError,
    NotServedError,
    OptionError,
    OverloadedError,
    QuotaError,
    RunError,
    TooLargeError,
    UnauthenticatedError,
)
from npuops.server.http_response import OK_JSON, MethodError, NotOfferedError, error_response, response, response_head


def parted(data: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    return line, dict(field.split(": ", 1) for field in fields), body


def test_a_response_says_its_length_and_type_and_when_the_connection_ends() -> None:
    assert parted(response(200, b"{}")) == (
        "HTTP/1.1 200 OK",
        {"Content-Type": "application/json", "Content-Length": "2"},
        b"{}",
    )
    line, fields, body = parted(response(503, b"later", headers={"A": "b"}, keep_alive=False, head_only=True))
    assert line == "HTTP/1.1 503 Service Unavailable"
    assert (fields["Content-Length"], fields["Connection"], fields["A"], body) == ("5", "close", "b", b"")


@pytest.mark.parametrize(
    ("error", "status", "field"),
    [
        (DataError("m", advice="a"), 400, None),
        (OptionError("m", advice="a"), 400, None),
        (UnauthenticatedError("m", advice="a"), 401, ("WWW-Authenticate", "Bearer")),
        (NotServedError("m", advice="a"), 404, None),
        (TooLargeError("m", advice="a"), 413, None),
        (QuotaError("m", advice="a", retry_after_s=0.2), 429, ("Retry-After", "1")),
        (CancelledError("m", advice="a"), 499, None),
        (RunError("m", advice="a"), 500, None),
        (NotOfferedError("m", advice="a"), 501, None),
        (OverloadedError("m", advice="a", retry_after_s=2.1), 503, ("Retry-After", "3")),
        (NotReadyError("m", advice="a"), 503, ("Retry-After", "1")),
        (DeadlineError("m", advice="a"), 504, None),
    ],
)
def test_every_error_has_its_status_and_says_what_to_do(
    error: Exception, status: int, field: tuple[str, str] | None
) -> None:
    line, fields, body = parted(error_response(error, keep_alive=True))
    assert int(line.split()[1]) == status
    assert json.loads(body) == {"error": "m; a"}
    assert "Connection" not in fields
    if field:
        assert fields[field[0]] == field[1]
    else:
        assert "Retry-After" not in fields


def test_a_method_that_a_path_does_not_take_is_405_with_those_it_does() -> None:
    line, fields, body = parted(error_response(MethodError("/v2", "POST", ("GET",)), keep_alive=True))
    assert (line.split()[1], fields["Allow"]) == ("405", "GET")
    assert b"/v2 takes GET, not POST" in body


def test_a_defect_of_ours_tells_nothing_of_itself() -> None:
    line, _, body = parted(error_response(KeyError("/home/secret"), keep_alive=True))
    assert line.split()[1] == "500"
    assert b"secret" not in body


def test_a_status_of_the_callers_own_wins() -> None:
    assert parted(error_response(DeadlineError("m"), keep_alive=False, status=408))[0].split()[1] == "408"


@pytest.mark.parametrize("size", [0, 9, 123_456])
def test_the_frequent_head_is_the_one_that_would_be_built(size: int) -> None:
    assert OK_JSON % size == response_head(200, size)
