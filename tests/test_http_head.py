from __future__ import annotations

import pytest

from npuops.errors import DataError, TooLargeError
from npuops.server.http_head import Head, parse_head


def head(line: str, *fields: str) -> Head:
    return parse_head("\r\n".join([line, *fields, "", ""]).encode("latin-1"))


def test_a_head_says_what_to_do_and_how_the_body_comes() -> None:
    it = head(
        "POST /v2/models/m/infer?x=1&y HTTP/1.1",
        "Host: a:80",
        "Content-LENGTH: 70",
        "Inference-Header-Content-Length: 50",
        "X-Two: 1",
        "x-two:  2 ",
    )
    assert (it.method, it.path, it.query) == ("POST", "/v2/models/m/infer", "x=1&y")
    assert (it.content_length, it.json_bytes, it.encoding, it.is_chunked) == (70, 50, "", False)
    assert it.headers["x-two"] == "1, 2"
    assert it.keep_alive
    assert not it.expects_continue


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://host:80/v2/health/live", "/v2/health/live"),
        ("HTTPS://host/v2?q", "/v2"),
        ("http://host", "/"),
        ("/http://host/v2", "/http://host/v2"),
        ("//v2", "//v2"),
        ("*", "*"),
    ],
)
def test_a_target_with_scheme_and_host_is_the_path_in_it(target: str, path: str) -> None:
    assert head(f"{'OPTIONS' if target == '*' else 'GET'} {target} HTTP/1.1", "Host: h").path == path


@pytest.mark.parametrize(
    ("line", "fields", "stays"),
    [
        ("GET / HTTP/1.1", (), True),
        ("GET / HTTP/1.1", ("Connection: close",), False),
        ("GET / HTTP/1.1", ("Connection: keep-alive, CLOSE",), False),
        ("GET / HTTP/1.1", ("Connection: x", "Connection: close"), False),
        ("GET / HTTP/1.1", ("Connection: closed",), True),
        ("POST / HTTP/1.1", ("Content-Length: 3", "Connection: close"), False),
        ("GET / HTTP/1.0", ("Connection: keep-alive",), False),
        ("GET / HTTP/1.1", ("Connection: Upgrade", "Upgrade: h2c"), True),
    ],
)
def test_whether_the_connection_stays_is_the_clients_word(line: str, fields: tuple[str, ...], stays: bool) -> None:
    assert head(line, "Host: h", *fields).keep_alive is stays


def test_a_head_of_http_1_0_needs_no_host_and_expects_nothing() -> None:
    it = head("POST / HTTP/1.0", "Content-Length: 3", "Expect: 100-continue")
    assert it.content_length == 3
    assert not it.expects_continue


def test_encodings_are_told_in_lower_case_and_identity_is_none() -> None:
    assert head("POST / HTTP/1.1", "Host: h", "Content-Encoding: GZip").encoding == "gzip"
    assert head("POST / HTTP/1.1", "Host: h", "Content-Encoding: Identity").encoding == ""
    assert head("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: Chunked").is_chunked


@pytest.mark.parametrize("value", ["-1", "1.5", "x", "٣", "9" * 25, "+3", "3 3"])
def test_the_length_of_the_json_is_a_number_of_bytes(value: str) -> None:
    data = f"POST / HTTP/1.1\r\nHost: h\r\nInference-Header-Content-Length: {value}\r\nContent-Length: 9\r\n\r\n"
    with pytest.raises(DataError, match="inference-header-content-length"):
        parse_head(data.encode())


def test_json_longer_than_the_body_is_refused_by_the_head_alone() -> None:
    fields = ("Host: h", "Inference-Header-Content-Length: 10")
    with pytest.raises(DataError, match="9 bytes"):
        head("POST / HTTP/1.1", *fields, "Content-Length: 9")
    assert head("POST / HTTP/1.1", *fields, "Content-Length: 9", "Content-Encoding: gzip").json_bytes == 10
    assert head("POST / HTTP/1.1", *fields, "Transfer-Encoding: chunked").json_bytes == 10


def test_fields_have_a_number_at_most_even_with_one_name() -> None:
    head("GET / HTTP/1.1", "Host: h", *["A: b"] * 127)
    with pytest.raises(TooLargeError):
        head("GET / HTTP/1.1", "Host: h", *["A: b"] * 128)


@pytest.mark.parametrize(
    "data", [b"", b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\0" * 9]
)
def test_what_is_no_whole_head_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"HTTP/1\.1"):
        parse_head(data)
