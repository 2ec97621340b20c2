"""From an address and the user's wishes to requests, against a real server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench_server import Answer, HttpServer, Request, double, http_server
from npuops.errors import DataError, NotServedError, OptionError
from npuops.loadgen.endpoint import parse_url
from npuops.loadgen.request_source import RequestOptions, guessed_type, prepare


async def takes_posts(_: HttpServer, request: Request) -> Answer:
    return 200, {}, request.body


def posted(headers: dict[str, str], body: bytes = b"{}") -> bytes:
    """What a body's request begins with."""
    with http_server(takes_posts) as server:
        url = f"http://127.0.0.1:{server.port}/predict"
        wire = prepare(parse_url(url), RequestOptions(body=body, headers=headers)).wires[0]
    return wire.partition(b"\r\n\r\n")[0].lower()


def test_a_header_of_the_users_takes_the_place_of_ours_in_whatever_case() -> None:
    head = posted({"content-type": "text/plain"})
    assert head.count(b"content-type:") == 1
    assert b"content-type: text/plain" in head


def test_a_body_says_that_it_is_json_where_it_is() -> None:
    assert b"content-type: application/json" in posted({})
    assert guessed_type(b"\x00\x01") == guessed_type(b"") == "application/octet-stream"


async def redirects(*_: object) -> Answer:
    return 307, {"Location": "https://elsewhere/predict/"}, b""


def test_a_redirect_is_told_with_its_place() -> None:
    with http_server(redirects) as server, pytest.raises(NotServedError, match="redirects to https://elsewhere"):
        prepare(parse_url(f"http://127.0.0.1:{server.port}/predict"), RequestOptions(body=b"{}"))


async def refuses_posts(_: HttpServer, request: Request) -> Answer:
    return 405 if request.path.endswith("/double") else 422, {}, b"no"


def test_a_refused_body_is_told_what_can_be_done_about_a_body() -> None:
    with http_server(refuses_posts) as server:
        with pytest.raises(NotServedError) as wrong_path:
            prepare(parse_url(server.url), RequestOptions(body=b"{}"))
        with pytest.raises(DataError) as wrong_body:
            prepare(parse_url(f"{server.url}/infer"), RequestOptions(body=b"{}"))
    assert "/v2/models/MODEL/infer" in wrong_path.value.advice
    assert "--content-type" in wrong_body.value.advice


def test_a_gateways_prefix_may_hold_any_letters() -> None:
    async def behind_a_gateway(server: HttpServer, request: Request) -> Answer:
        assert request.path.startswith("/%C3%A9/")
        return await double(server, replace(request, path=request.path.removeprefix("/%C3%A9")))

    with http_server(behind_a_gateway) as server:
        found = prepare(parse_url(f"http://127.0.0.1:{server.port}/é/v2/models/double"), RequestOptions())
    assert found.model == "double"


def test_what_json_cannot_hold_goes_as_binary_also_to_a_server_that_does_not_list_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array([[1, np.nan, 0, 0]], np.float32))
    undescribed = {"name": "double"}
    with http_server(extensions=(), model=undescribed) as server:
        options = RequestOptions(input=tmp_path / "x.npz")
        assert prepare(parse_url(server.url), options).form == "binary"
        with pytest.raises(OptionError, match="NaN"):
            prepare(parse_url(server.url), replace(options, format="json"))
