"""What a client hears of an error."""

from __future__ import annotations

from pathlib import Path

import grpc
import orjson
import pytest

from npuops import errors
from npuops.server.status import GrpcStatus, error_body, status_of, words_of


@pytest.mark.parametrize(
    ("error", "http", "code"),
    [
        (errors.DataError("m"), 400, GrpcStatus.INVALID_ARGUMENT),
        (errors.UnauthenticatedError("m"), 401, GrpcStatus.UNAUTHENTICATED),
        (errors.ForbiddenError("m"), 403, GrpcStatus.PERMISSION_DENIED),
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


@pytest.mark.parametrize("kind", [errors.NotReadyError, errors.IntegrityError, errors.RunError, errors.StorageError])
def test_clients_do_not_hear_where_the_servers_files_lie(kind: type[errors.NpuopsError], tmp_path: Path) -> None:
    error = kind(f"ort-cpu: {tmp_path}/digits/1/a.onnx has 6 bytes", advice=f"see '{tmp_path}' and {Path.home()}/b")
    assert words_of(error).startswith("ort-cpu: …/a.onnx has 6 bytes; see '…/")
    assert str(tmp_path.parent) not in words_of(error)
    assert str(tmp_path.parent) not in error_body(error).decode()


@pytest.mark.parametrize(
    "words",
    [
        "running Gather node. Name:'/encoder-of-nobody/emb/Gather' Status Message: idx=77",
        "GET /openapi.json tells them, /v2/models/m/load too",
        "and/or, 3/4 of http://127.0.0.1:8000/tmp/x",
    ],
)
def test_names_that_only_look_like_paths_stay(words: str) -> None:
    assert words_of(errors.RunError(words)) == words


def test_what_is_wrong_with_a_request_is_told_in_the_clients_own_words() -> None:
    assert words_of(errors.DataError("the model has no input '/tmp/x/y'")) == "the model has no input '/tmp/x/y'"


def test_the_codes_are_grpcs() -> None:
    assert {each.name: each.value for each in GrpcStatus} == {each.name: each.value[0] for each in grpc.StatusCode}
