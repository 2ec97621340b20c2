"""Clients that talk nonsense, stop half-way or come by the thousand: the device lives, and serves the others."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npuops.errors import OptionError
from npuops.vnpu import wire
from npuops.vnpu.client import connect
from npuops.vnpu.control_client import control
from npuops.vnpu.device_folder import device_folder
from npuops.vnpu.device_switch import up
from npuops.vnpu.tensors import TensorSpec
from virtual_devices import X, Y, descriptors_of, fast, home, order, program, wait_until

__all__ = ["fast", "home"]

FILES = 1_500
"""A thousand connections, and what else this process and the device have open."""


def dial(name: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    with device_folder(name).socket_address() as address:
        connection.connect(address)
    return connection


def hello(connection: socket.socket, priority: str | None = "normal") -> None:
    connection.sendall(wire.frame(wire.Hello(id=1, version=wire.VERSION, priority=priority)))


def answers(connection: socket.socket) -> list[wire.Reply]:
    """Everything until the device hangs up."""
    reader, found = wire.replies(), []
    while True:
        try:
            data = connection.recv(65536)
        except ConnectionError:
            return found
        if not data:
            return found
        found += reader.feed(data)


def works(name: str) -> bool:
    with connect(name) as client:
        loaded = client.load(program(), X, Y)
        return loaded.wait(loaded.submit(0)).busy_us == 1_000


NONSENSE: dict[str, bytes] = {
    "zeros": b"\0" * 64,
    "http": b"GET / HTTP/1.1\r\nHost: npu\r\n\r\n",
    "4 GB": b"\xff\xff\xff\xff",
    "17 MB": (17 << 20).to_bytes(4, "little"),
    "not MessagePack": b"\x04\0\0\0\xc1\xc1\xc1\xc1",
    "nested": (20_000).to_bytes(4, "little") + b"\x91" * 20_000,
    "a reply": wire.frame(wire.Done(id=1)),
}


@pytest.mark.parametrize("words", NONSENSE.values(), ids=NONSENSE.keys())
@pytest.mark.parametrize("introduced", [False, True])
def test_nonsense_costs_its_own_connection_with_the_reason(fast: str, words: bytes, introduced: bool) -> None:
    with dial(fast) as connection:
        if introduced:
            hello(connection)
        connection.sendall(words)
        last = answers(connection)[-1]
    assert isinstance(last, wire.Refused)
    assert last.id == 0
    assert works(fast)


def test_a_first_message_that_is_no_hello_and_another_version_are_refused(fast: str) -> None:
    for request, words in (
        (wire.AskStatus(id=7), "first message"),
        (wire.Hello(id=7, version=99), "speaks protocol"),
        (wire.Hello(id=7, version=wire.VERSION, priority="urgent"), "urgent"),
    ):
        with dial(fast) as connection:
            connection.sendall(wire.frame(request))
            connection.shutdown(socket.SHUT_WR)
            (refusal,) = answers(connection)
        assert isinstance(refusal, wire.Refused)
        assert refusal.id == 7
        assert words in refusal.message


@pytest.mark.parametrize("kept", [0, 1, 3, 4, 5, 40, -1])
def test_a_message_that_stops_half_way_waits_and_then_leaves_without_harm(fast: str, kept: int) -> None:
    data = wire.frame(wire.Load(id=2, program=program(), inputs=X, outputs=Y, slots=2))
    with dial(fast) as connection:
        hello(connection)
        connection.sendall(data[:kept])
        assert works(fast)
    wait_until(lambda: tenants(fast) == 0, "the context of a client that left")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=4), introduced=st.booleans())
def test_no_garbage_ends_the_device(fast: str, pieces: list[bytes], introduced: bool) -> None:
    with dial(fast) as connection:
        try:
            if introduced:
                hello(connection)
            for piece in pieces:
                connection.sendall(piece)
        except ConnectionError:
            return
    with control(fast) as client:
        assert client.status().telemetry.status == "online"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 2_000), byte=st.integers(0, 255))
def test_no_damaged_load_ends_the_device_or_leaks(fast: str, at: int, byte: int) -> None:
    data = bytearray(wire.frame(wire.Load(id=2, program=program(), inputs=X, outputs=Y, slots=2)))
    data[4 + at % (len(data) - 4)] = byte
    with dial(fast) as connection:
        hello(connection)
        connection.sendall(data)
    wait_until(lambda: tenants(fast) == 0, "the context of a client that left")
    with control(fast) as client:
        assert client.status().telemetry.memory_used_bytes == 0


def test_requests_that_are_well_formed_and_impossible_get_an_error_each(fast: str) -> None:
    absurd = (TensorSpec("x", "float32", (1 << 40,)),)
    requests: list[wire.Request] = [
        wire.Submit(id=10, handle=99, slot=0),
        wire.Unload(id=11, handle=99),
        wire.Load(id=12, program=program(), inputs=absurd, outputs=Y, slots=1),
        wire.Load(id=13, program=program(weights_bytes=1 << 40), inputs=X, outputs=Y, slots=1),
        wire.Load(id=14, program=program(), inputs=X, outputs=Y, slots=1, model="/nowhere.onnx"),
        wire.Load(id=15, program=program(), inputs=X, outputs=Y, slots=1, compiler="99.0"),
        wire.Advance(id=16, us=5),
        wire.Inject(id=17, fault={"kind": "hang", "share": 3}),
        wire.UpdateFirmware(id=18, image=b"nonsense"),
        wire.Attest(id=19, nonce=b"short"),
        wire.Hello(id=20, version=wire.VERSION),
    ]
    with dial(fast) as connection:
        hello(connection)
        connection.sendall(b"".join(map(wire.frame, requests)))
        found: dict[int, wire.Reply] = {}
        reader = wire.replies()
        while len(found) < 1 + len(requests):
            found |= {reply.id: reply for reply in reader.feed(connection.recv(65536))}
    refused = {number for number, reply in found.items() if isinstance(reply, wire.Refused)}
    assert refused == {request.id for request in requests}
    assert works(fast)


def test_a_client_that_sends_descriptors_by_the_hundred_leaves_none(fast: str) -> None:
    pid = device_folder(fast).record().pid  # type: ignore[union-attr]
    before = descriptors_of(pid)
    unwanted = [os.memfd_create("unwanted") for _ in range(200)]
    with dial(fast) as connection:
        hello(connection)
        for number in range(20):
            ask = wire.frame(wire.AskStatus(id=10 + number))
            socket.send_fds(connection, [ask], unwanted)
        reader, found = wire.replies(), 0
        while found < 21:
            found += len(reader.feed(connection.recv(65536)))
        assert descriptors_of(pid) < before + 20, "of four thousand"
    for descriptor in unwanted:
        os.close(descriptor)
    assert works(fast)


def test_a_client_that_talks_byte_by_byte_is_served_and_holds_up_nobody(fast: str) -> None:
    data = wire.frame(wire.Hello(id=1, version=wire.VERSION)) + wire.frame(wire.AskStatus(id=2))
    with dial(fast) as connection:
        for at, byte in enumerate(data):
            connection.sendall(bytes([byte]))
            if at % 20 == 0:
                assert works(fast)
        reader, found = wire.replies(), list[wire.Reply]()
        while len(found) < 2:
            found += reader.feed(connection.recv(65536))
    assert [type(reply) for reply in found] == [wire.Welcome, wire.Status]


def test_a_client_that_closes_its_half_has_left(fast: str) -> None:
    with dial(fast) as connection:
        hello(connection)
        connection.sendall(wire.frame(wire.Load(id=2, program=program(), inputs=X, outputs=Y, slots=2)))
        connection.shutdown(socket.SHUT_WR)
        assert [type(reply) for reply in answers(connection)] == [wire.Welcome, wire.Loaded]
        wait_until(lambda: tenants(fast) == 0, "the context of a client that asks for nothing more")


def test_tensors_that_numpy_cannot_hold_are_refused_and_the_device_lives(fast: str) -> None:
    with connect(fast) as client:
        for shape in ((0, 1 << 62), (1,) * 65):
            spec = (TensorSpec("x", "float32", shape),)
            with pytest.raises(OptionError, match="dimensions"):
                client.load(program(), spec, Y)
            request = wire.Load(id=client._line.number(), program=program(), inputs=spec, outputs=Y, slots=1)
            with pytest.raises(OptionError, match="dimensions"):
                client._line.ask(request, wire.Loaded, 10)
    assert works(fast)


def test_a_client_that_never_reads_is_dropped_before_its_replies_fill_the_memory(fast: str) -> None:
    burst = b"".join(wire.frame(wire.AskStatus(id=number)) for number in range(2, 2_000))
    with dial(fast) as connection:
        hello(connection)
        connection.settimeout(0.2)
        try:
            for _ in range(50):
                connection.sendall(burst)
        except (TimeoutError, ConnectionError):
            was_stopped = True
        else:
            was_stopped = False
        assert was_stopped, "the device read everything and answered into nowhere"
        assert works(fast)
    wait_until(lambda: tenants(fast) == 0, "the context of a client that was dropped")


def test_a_thousand_clients_one_after_the_other_leave_nothing(fast: str) -> None:
    pid = device_folder(fast).record().pid  # type: ignore[union-attr]
    before = descriptors_of(pid)
    for number in range(1_000):
        with dial(fast) as connection:
            if number % 2:
                hello(connection)
    assert works(fast)
    wait_until(lambda: descriptors_of(pid) <= before, "descriptors of clients that left")
    assert tenants(fast) == 0


def test_a_thousand_clients_at_once_and_one_more_that_works(fast: str) -> None:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < FILES:
        pytest.skip(f"a process may open {most} files here, and this takes {FILES}: ulimit -n {FILES}")
    crowd = [dial(fast) for _ in range(1_000)]
    try:
        assert works(fast)
    finally:
        for connection in crowd:
            connection.close()
    assert works(fast)


def test_a_client_sees_by_its_process_number_who_it_is(fast: str) -> None:
    with connect(fast) as client:
        (tenant,) = client.status().telemetry.contexts
    assert tenant.pid == os.getpid()


@pytest.mark.usefixtures("home")
def test_the_tree_follows_what_happens() -> None:
    name = up(order()).name
    accel = device_folder(name).accel(0) / "device"

    def says(path: str) -> str:
        try:
            return (accel / path).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""

    with connect(name) as client:
        loaded = client.load(program(5_000_000.0), X, Y)
        loaded.wait(loaded.submit(0))
        awaited: dict[str, Callable[[str], bool]] = {
            "npu_busy_time_us": lambda text: text == "5000000",
            "npu_memory_utilization": lambda text: text == str(1 << 20),
            f"contexts/{client.context}/submissions": lambda text: text == "1",
            f"contexts/{client.context}/pid": lambda text: text == str(os.getpid()),
        }
        for path, holds in awaited.items():
            wait_until(lambda path=path, holds=holds: holds(says(path)), path)  # type: ignore[misc]
        client.inject({"kind": "hang"})
        wait_until(lambda: says("status") == "hung", "hung")
        client.inject({"kind": "ecc_corrected", "count": 3})
        wait_until(lambda: says("ce_count") == "3", "ce_count")
        client.reset()
        wait_until(lambda: says("status") == "online" and says("reset_counter") == "1", "online again")
        client.inject({"kind": "driver_crash"})
        wait_until(lambda: not accel.exists(), "the tree of a device whose driver is dead")
    with control(name) as again:
        again.reset()
    wait_until(lambda: says("status") == "online", "back")
    assert [line.split()[1] for line in says("uevents").splitlines()][:1] == ["add"]


@pytest.mark.slow
def test_a_stranger_who_says_nothing_is_hung_up_after_ten_seconds(fast: str) -> None:
    with dial(fast) as connection:
        connection.settimeout(60)
        started = time.monotonic()
        (refusal,) = answers(connection)
    assert time.monotonic() - started > 8
    assert isinstance(refusal, wire.Refused)
    assert "no Hello" in refusal.message


def tenants(name: str) -> int:
    with control(name) as client:
        return len(client.status().telemetry.contexts)


def test_a_status_is_small_enough_for_many_tenants(fast: str) -> None:
    crowd = [connect(fast) for _ in range(50)]
    with control(fast) as client:
        found = client.status()
    assert len(found.telemetry.contexts) == 50
    assert len(msgspec.msgpack.encode(found)) < 50_000
    for each in crowd:
        each.close()
