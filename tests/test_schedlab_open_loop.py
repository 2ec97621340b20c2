"""Requests go when their time has come; what is not answered, or is refused, is a miss and not forgotten."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from npuops.errors import ToolchainCrashError
from npuops.schedlab.open_loop import CONNECTIONS, asking, played_by, poisson_ns
from npuops.schedlab.program_outcome import Answers

WINDOW_NS = 200_000_000
PING = b"PING\r\n"
Reply = Callable[[int], bytes]
"""What a connection says to its n-th request, from 0; b"" is nothing."""


@contextmanager
def server(reply: Reply, *, hang_up_after: int | None = None) -> Iterator[int]:
    """One that reads PINGs on any number of connections; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threads: list[threading.Thread] = []

        def talk(line: socket.socket) -> None:
            seen, count = b"", 0
            with line, suppress(ConnectionError):  # a client that gives up resets
                while more := line.recv(4096):
                    seen += more
                    while seen.startswith(PING):
                        seen = seen[len(PING) :]
                        if hang_up_after is not None and count >= hang_up_after:
                            return
                        line.sendall(reply(count))
                        count += 1

        def welcome() -> None:
            for _ in range(CONNECTIONS):
                line, _ = listening.accept()
                threads.append(threading.Thread(target=talk, args=(line,)))
                threads[-1].start()

        door = threading.Thread(target=welcome)
        door.start()
        try:
            yield listening.getsockname()[1]
        finally:
            door.join(60)
            for thread in threads:
                thread.join(60)
            assert not any(thread.is_alive() for thread in (door, *threads))


def ask(folder: Path, reply: Reply, protocol: str = "redis", hang_up_after: int | None = None) -> Answers:
    """All that becomes of a short window's requests."""
    arrivals = poisson_ns(1, 200, WINDOW_NS)
    with (
        server(reply, hang_up_after=hang_up_after) as port,
        asking(port, protocol, PING, arrivals, WINDOW_NS, folder) as client,
    ):
        client.go(time.monotonic_ns())
        return client.finish()


CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n10;x=y\r\n" + b"z" * 16 + b"\r\n0\r\n\r\n"
REPLIES = {
    "line": ("redis", b"+PONG\r\n"),
    "nested": ("redis", b"*3\r\n$2\r\nab\r\n*2\r\n:1\r\n$-1\r\n*0\r\n"),
    "value": ("memcached", b"VALUE item 0 7\r\nab\r\nEND\r\nEND\r\n"),
    "length": ("http", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n\r\nx"),
    "chunks": ("http", CHUNKS),
}


@pytest.mark.parametrize(("protocol", "reply"), REPLIES.values(), ids=REPLIES)
def test_every_answer_is_counted_once(tmp_path: Path, protocol: str, reply: bytes) -> None:
    answers = ask(tmp_path, lambda _: reply, protocol)
    assert answers.answered.all()
    assert len(answers.answered) == len(poisson_ns(1, 200, WINDOW_NS)) > 20
    assert (answers.response_us > 0).all()


def test_what_is_never_answered_is_a_miss_as_late_as_the_end(tmp_path: Path) -> None:
    answers = ask(tmp_path, lambda count: b"+PONG\r\n" if count == 0 else b"")
    assert not answers.answered.any()
    arrivals_us = poisson_ns(1, 200, WINDOW_NS) / 1000
    assert np.allclose(answers.response_us + arrivals_us, 1_200_000)


REFUSALS = {
    "redis": b"-LOADING not yet\r\n",
    "memcached": b"END\r\n",
    "http": b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("protocol", REFUSALS)
def test_a_refusal_is_a_miss(tmp_path: Path, protocol: str) -> None:
    fine = next(reply for kind, reply in REPLIES.values() if kind == protocol)
    answers = ask(tmp_path, lambda count: REFUSALS[protocol] if count == 1 else fine, protocol)
    assert (~answers.answered).sum() == min(CONNECTIONS, len(answers.answered))


@pytest.mark.parametrize("protocol", REFUSALS)
def test_a_server_that_refuses_from_the_beginning_is_told(tmp_path: Path, protocol: str) -> None:
    with pytest.raises(ToolchainCrashError, match="refuses"):
        ask(tmp_path, lambda _: REFUSALS[protocol], protocol)


def test_a_server_that_hangs_up_spoils_the_play(tmp_path: Path) -> None:
    with pytest.raises(ToolchainCrashError, match="closed a connection"):
        ask(tmp_path, lambda _: b"+PONG\r\n", hang_up_after=2)


@pytest.mark.parametrize(("protocol", "reply"), [("redis", b"?what\r\n"), ("http", b"SSH-2.0-x\r\n\r\n")])
def test_what_is_no_answer_is_told(tmp_path: Path, protocol: str, reply: bytes) -> None:
    with pytest.raises(ToolchainCrashError, match="cannot be read"):
        ask(tmp_path, lambda _: reply, protocol)


def test_answers_that_nobody_asked_for_are_told(tmp_path: Path) -> None:
    with pytest.raises(ToolchainCrashError, match="nobody asked"):
        ask(tmp_path, lambda _: b"+PONG\r\n+PONG\r\n")


def test_nobody_there_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with (
        pytest.raises(ToolchainCrashError, match="connect"),
        asking(port, "redis", PING, poisson_ns(1, 10, WINDOW_NS), WINDOW_NS, tmp_path),
    ):
        pass


def test_arrivals_are_the_seeds_and_of_the_rate() -> None:
    one = poisson_ns(3, 1000, 10_000_000_000)
    assert np.array_equal(one, poisson_ns(3, 1000, 10_000_000_000))
    assert not np.array_equal(one[:100], poisson_ns(4, 1000, 10_000_000_000)[:100])
    assert (np.diff(one) >= 0).all()
    assert one[-1] < 10_000_000_000
    assert 9_500 < len(one) < 10_500


def test_messengers_wake_a_worker_for_every_request(tmp_path: Path) -> None:
    arrivals = poisson_ns(1, 500, WINDOW_NS)
    with played_by(["wake", "2", "4", "1000"], "messengers", arrivals, WINDOW_NS, tmp_path) as app:
        app.go(time.monotonic_ns())
        answers = app.finish()
    assert answers.answered.all()
    assert (answers.response_us > 0).all()


def test_messengers_that_do_not_divide_the_workers_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ToolchainCrashError, match="as many workers"),
        played_by(["wake", "3", "4", "1"], "messengers", poisson_ns(1, 10, WINDOW_NS), WINDOW_NS, tmp_path),
    ):
        pass
