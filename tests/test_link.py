"""The device's end of one connection: it never waits, whatever the client does."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from npuops.vnpu import wire
from npuops.vnpu.link import Link
from virtual_devices import descriptors_of


@pytest.fixture
def pair() -> Iterator[tuple[Link, socket.socket]]:
    open_before = descriptors_of(os.getpid())
    theirs, ours = socket.socketpair()
    link = Link(7, ours)
    yield link, theirs
    link.close()
    theirs.close()
    assert descriptors_of(os.getpid()) <= open_before, "a descriptor is left"


def memory() -> int:
    return os.memfd_create("test")


def everything(connection: socket.socket) -> tuple[bytes, list[int]]:
    """What has come until now."""
    connection.setblocking(False)
    data, descriptors = b"", []
    while True:
        try:
            piece, came, _, _ = socket.recv_fds(connection, 1 << 20, 8)
        except BlockingIOError:
            return data, descriptors
        data, descriptors = data + piece, descriptors + came


def test_it_knows_who_connected(pair: tuple[Link, socket.socket]) -> None:
    link, _ = pair
    assert (link.key, link.pid, link.uid) == (7, os.getpid(), os.getuid())


def test_requests_come_when_they_are_whole_and_the_end_is_none(pair: tuple[Link, socket.socket]) -> None:
    link, client = pair
    asked = wire.AskStatus(id=3)
    data = wire.frame(asked)
    assert link.receive() == []
    client.sendall(data[:5])
    assert link.receive() == []
    client.sendall(data[5:] + data)
    assert link.receive() == [asked, asked]
    client.shutdown(socket.SHUT_WR)
    assert link.receive() is None, "half-closed: no answer can be asked for any more"


def test_a_flood_of_requests_is_taken_in_portions(pair: tuple[Link, socket.socket]) -> None:
    link, client = pair
    ask = wire.frame(wire.AskStatus(id=3))
    client.sendall(ask * 4_000)
    portions = []
    while portion := link.receive():
        portions.append(len(portion))
    assert sum(portions) == 4_000
    assert max(portions) < 1_000, "between two portions the others have their turn"


def test_descriptors_that_a_client_sends_are_not_taken(pair: tuple[Link, socket.socket]) -> None:
    link, client = pair
    open_before = descriptors_of(os.getpid())
    unwanted = [memory() for _ in range(50)]
    socket.send_fds(client, [wire.frame(wire.AskStatus(id=3))], unwanted)
    for descriptor in unwanted:
        os.close(descriptor)
    assert link.receive() == [wire.AskStatus(id=3)]
    assert descriptors_of(os.getpid()) <= open_before


def test_a_reply_and_its_descriptor_go_out_together_and_ours_is_closed(pair: tuple[Link, socket.socket]) -> None:
    link, client = pair
    descriptor = memory()
    link.send(wire.Done(id=1))
    link.send(wire.Loaded(id=2, handle=5), descriptor)
    assert not link.is_stuck
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    data, came = everything(client)
    assert wire.replies().feed(data) == [wire.Done(id=1), wire.Loaded(id=2, handle=5)]
    assert len(came) == 1
    os.close(came[0])


def test_what_the_client_does_not_read_is_kept_in_order_and_sent_later(pair: tuple[Link, socket.socket]) -> None:
    link, client = pair
    count, words = 0, "x" * 50_000
    while not link.is_stuck:
        count += 1
        link.send(wire.Refused(id=count, kind="RunError", message=words))
    descriptor = memory()
    link.send(wire.Loaded(id=count + 1, handle=5), descriptor)
    os.fstat(descriptor)  # still ours
    reader, found, came = wire.replies(), list[wire.Reply](), list[int]()
    while len(found) <= count:
        data, descriptors = everything(client)
        found += reader.feed(data)
        came += descriptors
        link.flush()
    assert [reply.id for reply in found] == list(range(1, count + 2))
    assert not link.is_stuck
    assert len(came) == 1
    os.close(came[0])


def test_a_client_that_never_reads_is_an_error_before_the_memory_is_full(pair: tuple[Link, socket.socket]) -> None:
    link, _ = pair
    descriptor = memory()
    sent = 0

    def pile_up() -> None:
        nonlocal sent
        while sent < 100 << 20:
            link.send(wire.Refused(id=1, kind="RunError", message="x" * 100_000))
            sent += 100_000

    with pytest.raises(wire.ProtocolError, match="were not read"):
        pile_up()
    assert sent < 6 << 20
    with pytest.raises(wire.ProtocolError):
        link.send(wire.Loaded(id=2, handle=1), descriptor)
    link.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_client_that_is_gone_is_an_error_to_send_to_and_none_to_read_from(pair: tuple[Link, socket.socket]) -> None:
    link, client = pair
    client.close()
    assert link.receive() is None
    with pytest.raises(OSError, match="Broken pipe"):
        link.send(wire.Done(id=1))


def test_nonsense_is_an_error(pair: tuple[Link, socket.socket]) -> None:
    link, client = pair
    client.sendall(b"\xff\xff\xff\xff")
    with pytest.raises(wire.ProtocolError, match="is announced"):
        link.receive()
