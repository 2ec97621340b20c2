"""HTTP lanes against servers that answer in every way that HTTP/1.1 allows, and in some that it does not."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from npuops.loadgen.http_client import HttpLane, KeepingHttpLane
from npuops.loadgen.load_worker import run_loop
from npuops.loadgen.outcomes import LOST, MALFORMED, NO_SOCKET, REFUSED, TIMED_OUT

REQUEST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


def asked(handler: Handler, times: int = 1, lane_class: type[HttpLane] = HttpLane) -> tuple[list[int], Any]:
    """Ask so often on one lane; what each request settled with, and the lane."""

    async def main() -> tuple[list[int], Any]:
        connections = 0

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            try:
                await handler(reader, writer, connections)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            finally:
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        loop = asyncio.get_running_loop()
        codes: asyncio.Queue[int] = asyncio.Queue()
        port = server.sockets[0].getsockname()[1]
        lane = lane_class(loop, ("127.0.0.1", port), None, [REQUEST], lambda _, code: codes.put_nowait(code))
        await lane.open()
        found = []
        for _ in range(times):
            lane.send(0)
            found.append(await asyncio.wait_for(codes.get(), 10))
        lane.close()
        server.close()
        assert codes.empty(), "a request settles once"
        return found, lane

    return run_loop(main)  # type: ignore[no-any-return]


def answering(*answers: bytes, close: bool = False) -> Handler:
    """Each request on a connection gets the next of these; the last one for ever."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        place = 0
        while True:
            await reader.readexactly(len(REQUEST))
            writer.write(answers[min(place, len(answers) - 1)])
            await writer.drain()
            place += 1
            if close:
                return

    return handler


def test_answers_come_one_after_the_other_on_one_connection() -> None:
    codes, lane = asked(answering(OK, OK.replace(b"200 OK", b"503 Busy")), 3)
    assert codes == [200, 503, 503]
    assert lane.reconnects == 0


def test_a_chunked_answer_is_whole_at_its_last_chunk() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3\r\nyes\r\n0\r\n\r\n"
    codes, lane = asked(answering(chunked), 2, KeepingHttpLane)
    assert codes == [200, 200]
    assert lane.body == b"okyes"


def test_an_interim_answer_is_not_the_answer() -> None:
    assert asked(answering(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK), 2)[0] == [200, 200]


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    codes, lane = asked(answering(b"HTTP/1.1 200 OK\r\n\r\nall of it", close=True), 2)
    assert codes == [200, 200]
    assert lane.reconnects == 1


def test_an_answer_that_breaks_off_is_lost() -> None:
    assert asked(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", close=True))[0] == [LOST]
    assert asked(answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok", close=True))[0] == [LOST]
    assert asked(answering(b"", close=True))[0] == [LOST]


def test_a_server_that_closes_after_each_answer_is_connected_to_again() -> None:
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    codes, lane = asked(answering(closing, close=True), 3)
    assert codes == [200, 200, 200]
    assert lane.reconnects == 2


def test_what_is_not_http_is_malformed_and_the_next_request_has_a_new_connection() -> None:
    codes, lane = asked(answering(b"SSH-2.0-server\r\n"), 2)
    assert codes == [MALFORMED, MALFORMED]
    assert lane.reconnects == 1


def test_an_answer_that_nobody_asked_for_ends_the_connection() -> None:
    codes, _ = asked(answering(OK + OK), 2)
    assert codes == [200, 200]


def test_nobody_there_is_refused() -> None:
    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: int) -> None:
        writer.close()

    async def main() -> list[int]:
        codes: list[int] = []
        done = asyncio.Event()
        server = await asyncio.start_server(lambda r, w: handler(r, w, 0), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        loop = asyncio.get_running_loop()
        lane = HttpLane(loop, ("127.0.0.1", port), None, [REQUEST], lambda _, code: (codes.append(code), done.set())[1])
        await lane.open()
        lane.send(0)
        await asyncio.wait_for(done.wait(), 10)
        return codes

    assert run_loop(main) == [REFUSED]


def test_a_connection_that_idled_away_is_replaced_without_a_word() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        await reader.readexactly(len(REQUEST))
        if connection == 1:
            writer.write(OK)
            await reader.readexactly(len(REQUEST))  # closes just as the next request arrives
            return
        writer.write(OK)
        await reader.readexactly(len(REQUEST))

    async def main() -> tuple[list[int], int]:
        codes: asyncio.Queue[int] = asyncio.Queue()
        server = await asyncio.start_server(lambda r, w: _closing(handler, r, w, counter), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        lane = HttpLane(loop, ("127.0.0.1", port), None, [REQUEST], lambda _, code: codes.put_nowait(code))
        found = []
        for _ in range(2):
            lane.send(0)
            found.append(await asyncio.wait_for(codes.get(), 10))
            lane._settled_s -= 60  # as if it had idled for a minute
        lane.close()
        server.close()
        return found, lane.reconnects

    counter = [0]
    assert run_loop(main) == ([200, 200], 1)


async def _closing(
    handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counter: list[int]
) -> None:
    counter[0] += 1
    try:
        await handler(reader, writer, counter[0])
    except asyncio.IncompleteReadError:
        return
    finally:
        writer.close()


def test_a_request_that_is_given_up_settles_once_and_the_lane_goes_on() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        await reader.readexactly(len(REQUEST))
        if connection == 1:
            await reader.read()  # never answers
            return
        writer.write(OK)
        await reader.read()

    async def main() -> list[int]:
        codes: asyncio.Queue[int] = asyncio.Queue()
        counter = [0]
        server = await asyncio.start_server(lambda r, w: _closing(handler, r, w, counter), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        lane = HttpLane(loop, ("127.0.0.1", port), None, [REQUEST], lambda _, code: codes.put_nowait(code))
        await lane.open()
        lane.send(0)
        lane.fail(TIMED_OUT)
        first = await codes.get()
        lane.send(0)
        second = await asyncio.wait_for(codes.get(), 10)
        lane.close()
        server.close()
        assert codes.empty()
        return [first, second]

    assert run_loop(main) == [TIMED_OUT, 200]


@pytest.mark.parametrize("cut", range(1, len(OK)))
def test_an_answer_may_arrive_in_any_two_pieces(cut: int) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        for _ in range(2):
            await reader.readexactly(len(REQUEST))
            writer.write(OK[:cut])
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(OK[cut:])

    assert asked(handler, 2)[0] == [200, 200]


UNTIL_CLOSED = b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nall of it"


@pytest.mark.parametrize("cut", range(1, len(UNTIL_CLOSED), 3))
def test_an_answer_without_a_length_may_arrive_in_any_two_pieces(cut: int) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        await reader.readexactly(len(REQUEST))
        writer.write(UNTIL_CLOSED[:cut])
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(UNTIL_CLOSED[cut:])

    assert asked(handler, 2)[0] == [200, 200]


def test_a_client_without_descriptors_does_not_say_that_the_server_refused() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        codes: asyncio.Queue[int] = asyncio.Queue()
        lane = HttpLane(loop, ("127.0.0.1", 1), None, [REQUEST], lambda _, code: codes.put_nowait(code))
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            lane.send(0)
            return [await asyncio.wait_for(codes.get(), 10)]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            lane.close()

    assert run_loop(main) == [NO_SOCKET]
