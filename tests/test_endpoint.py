"""Addresses of what gets the load."""

from __future__ import annotations

import pytest

from npuops.errors import UsageError
from npuops.loadgen.endpoint import parse_url


@pytest.mark.parametrize(
    ("url", "protocol", "authority", "model", "version", "model_path"),
    [
        ("http://h:8000/v2/models/m", "http", "h:8000", "m", "", "/v2/models/m"),
        ("h:8000/v2/models/m/infer", "http", "h:8000", "m", "", "/v2/models/m"),
        ("http://h:8000/v2/models/m/versions/3/infer", "http", "h:8000", "m", "3", "/v2/models/m/versions/3"),
        ("https://h/serving/ns/v2/models/m/", "http", "h:443", "m", "", "/serving/ns/v2/models/m"),
        ("http://[::1]:80/v2/models/a%20b", "http", "[::1]:80", "a b", "", "/v2/models/a%20b"),
        ("grpc://h:8001/m", "grpc", "h:8001", "m", "", "/v2/models/m"),
        ("grpcs://h/m/2", "grpc", "h:443", "m", "2", "/v2/models/m/versions/2"),
    ],
)
def test_an_address_tells_protocol_place_model_and_version(
    url: str, protocol: str, authority: str, model: str, version: str, model_path: str
) -> None:
    found = parse_url(url)
    assert (found.protocol, found.authority, found.model, found.version) == (protocol, authority, model, version)
    assert found.model_path == model_path


def test_the_protocol_can_be_chosen_apart_from_the_address() -> None:
    found = parse_url("http://h:8001/v2/models/m", protocol="grpc")
    assert (found.protocol, found.model, found.tls) == ("grpc", "m", False)


def test_any_other_path_is_kept_with_its_query() -> None:
    assert parse_url("http://h/predict?x=1&y=a").path == "/predict?x=1&y=a"
    assert parse_url("http://h").path == "/"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "no address"),
        ("http://", "no address"),
        ("file:///etc/passwd", "no address"),
        ("http://h:99999/", "no address"),
        ("http://h/\r\nX: y", "control character"),
        ("http://user:secret@h/", "password"),
        ("grpc://h/a/b/c", "more than a model"),
    ],
)
def test_what_is_no_address_is_refused(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_url(url)
    with pytest.raises(UsageError, match="no protocol"):
        parse_url("http://h/", protocol="smtp")


def test_letters_beyond_ascii_are_spelt_as_a_request_line_and_a_name_server_want_them() -> None:
    found = parse_url("http://bücher.example/é/v2/models/m?q=ü")
    assert (found.host, found.prefix, found.path) == (
        "xn--bcher-kva.example",
        "/%C3%A9",
        "/%C3%A9/v2/models/m?q=%C3%BC",
    )
    with pytest.raises(UsageError, match="is no address"):
        parse_url(f"http://{'a' * 70}/v2/models/m")
