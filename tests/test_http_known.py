from __future__ import annotations

from typing import Any

import pytest

from npuops.errors import DataError, NotServedError
from npuops.server.http_head import Head
from npuops.server.http_known import Heads, Known


class Counting:
    """A router that counts, and refuses `/no`."""

    def __init__(self) -> None:
        self.calls = 0

    def know(self, head: Head) -> Known:
        self.calls += 1
        if head.path == "/no":
            raise NotServedError("no")
        return Known(head, lambda *_: None, self.calls)


def data(path: str = "/yes", *fields: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: h", *fields, "", ""]).encode()


def learnt(heads: Heads, raw: bytes) -> Any:
    return heads.get(raw) or heads.learn(raw)


def test_a_head_is_worked_out_once() -> None:
    router = Counting()
    heads = Heads(router, 1000)
    assert learnt(heads, data()) is learnt(heads, data())
    assert router.calls == 1


def test_a_refusal_is_asked_again_each_time() -> None:
    router = Counting()
    heads = Heads(router, 1000)
    for calls in (1, 2):
        assert isinstance(learnt(heads, data("/no")).refused, NotServedError)
        assert router.calls == calls


def test_what_is_no_head_raises() -> None:
    with pytest.raises(DataError):
        Heads(Counting(), 1000).learn(b"hello\r\n\r\n")


def test_heads_that_are_long_or_announce_too_much_are_not_kept_and_their_number_is_bounded() -> None:
    heads = Heads(Counting(), 1000)
    for raw in (data("/yes", "X: " + "y" * 3000), data("/yes", "Content-Length: 1001")):
        heads.learn(raw)
        assert heads.get(raw) is None
    for number in range(10_000):
        heads.learn(data(f"/{number}"))
    assert len(heads._known) <= 4096
    assert heads.get(data("/9999")) is not None


def test_only_a_body_that_comes_as_it_is_has_a_size_for_the_quick_way() -> None:
    heads = Heads(Counting(), 1000)
    assert heads.learn(data("/yes", "Content-Length: 7")).body_bytes == 7
    assert heads.learn(data("/yes", "Content-Length: 7", "Content-Encoding: gzip")).body_bytes == -1
    assert heads.learn(data("/yes", "Transfer-Encoding: chunked")).body_bytes == -1
