"""The client's end of the wire against a device whose words the test writes itself, over a real socket."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from npuops.errors import DeviceError, DeviceLostError
from npuops.vnpu import wire
from npuops.vnpu.device_folder import DeviceFolder
from npuops.vnpu.line_client import Line, NoAnswerError
from virtual_devices import X, Y, descriptors_of, program


class Device:
    """What a daemon would be: says what the test tells it."""

    def __init__(self, listener: socket.socket) -> None:
        self._connection, _ = listener.accept()
        self._connection.settimeout(10)
        self._reader = wire.requests()
        self._heard: deque[wire.Request] = deque()

    def says(self, *replies: wire.Reply) -> None:
        self._connection.sendall(b"".join(map(wire.frame, replies)))

    def hands_over(self, reply: wire.Reply, size: int) -> None:
        """A reply with a descriptor of memory of that size."""
        memory = os.memfd_create("test")
        os.ftruncate(memory, size)
        socket.send_fds(self._connection, [wire.frame(reply)], [memory])
        os.close(memory)

    def sends(self, data: bytes) -> None:
        self._connection.sendall(data)

    def hears(self) -> wire.Request:
        while not self._heard:
            self._heard += self._reader.feed(self._connection.recv(65536))
        return self._heard.popleft()

    def ends(self) -> None:
        self._connection.close()


@contextmanager
def connected(tmp_path: Path) -> Iterator[tuple[Line, Device]]:
    folder = DeviceFolder(tmp_path, "npu0")
    folder.root.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder.socket))
        listener.listen()
        line = Line(folder, 10)
        device = Device(listener)
    yield line, device
    line.close()
    device.ends()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Line, Device]]:
    open_before = descriptors_of(os.getpid())
    with connected(tmp_path) as both:
        yield both
    assert descriptors_of(os.getpid()) <= open_before, "a descriptor is left"


def load(number: int) -> wire.Load:
    return wire.Load(id=number, program=program(), inputs=X, outputs=Y, slots=1)


def status(number: int) -> wire.AskStatus:
    return wire.AskStatus(id=number)


def test_replies_find_their_requests_in_whatever_order_they_come(pair: tuple[Line, Device]) -> None:
    line, device = pair
    first, second = line.number(), line.number()
    line.send(status(first))
    line.send(status(second))
    device.says(wire.Done(id=second), wire.Done(id=first))
    assert line.wait(first, wire.Done, 10).id == first
    assert line.has_come(second)
    assert line.wait(second, wire.Done, 10).id == second


def test_every_reply_keeps_the_descriptor_that_came_with_it(pair: tuple[Line, Device]) -> None:
    line, device = pair
    numbers = [line.number() for _ in range(3)]
    for number in reversed(numbers):
        device.hands_over(wire.Loaded(id=number, handle=number), size=number * 100)
    for number in numbers:
        line.wait(number, wire.Loaded, 10)
        descriptor = line.take_descriptor(number)
        assert os.fstat(descriptor).st_size == number * 100
        os.close(descriptor)


def test_an_answer_that_is_late_may_be_waited_for_again(pair: tuple[Line, Device]) -> None:
    line, device = pair
    number = line.number()
    line.send(status(number))
    for _ in range(2):
        with pytest.raises(NoAnswerError, match=r"did not answer within 0\.01 s"):
            line.wait(number, wire.Done, 0.01)
    assert not line.has_come(number)
    device.says(wire.Done(id=number))
    assert line.wait(number, wire.Done, 10).id == number


def test_a_load_that_nobody_waits_for_any_more_is_undone_when_it_comes(pair: tuple[Line, Device]) -> None:
    line, device = pair
    late, later = line.number(), line.number()
    with pytest.raises(NoAnswerError):
        line.ask(load(late), wire.Loaded, 0.01)
    device.hears()
    device.hands_over(wire.Loaded(id=late, handle=71), size=100)
    device.hands_over(wire.Loaded(id=later, handle=72), size=200)
    assert line.ask(load(later), wire.Loaded, 10).handle == 72
    descriptor = line.take_descriptor(later)
    assert os.fstat(descriptor).st_size == 200, "the memory of the program that was asked for, not of the late one"
    os.close(descriptor)
    device.hears()
    unload = device.hears()
    assert isinstance(unload, wire.Unload)
    assert unload.handle == 71
    device.says(wire.Done(id=unload.id))
    assert not line.has_come(unload.id), "nobody waits for that"


def test_descriptors_that_nobody_took_are_closed_with_the_line(pair: tuple[Line, Device]) -> None:
    line, device = pair
    device.hands_over(wire.Loaded(id=5, handle=1), size=1)
    device.hands_over(wire.Done(id=6), size=1)
    assert line.has_come(6)
    line.close()
    line.close()


def test_a_program_without_memory_is_an_error(pair: tuple[Line, Device]) -> None:
    line, device = pair
    number = line.number()
    device.says(wire.Loaded(id=number, handle=1))
    line.wait(number, wire.Loaded, 10)
    with pytest.raises(DeviceLostError, match="sent no memory"):
        line.take_descriptor(number)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (b"\xff\xff\xff\xff", "talks nonsense"),
        (b"\x01\0\0\0\xc1", "talks nonsense"),
        (wire.frame(wire.AskStatus(id=1)), "talks nonsense"),
        (wire.frame(wire.Welcome(id=1, device="d", profile="p", pacing="fast", context=None)), "where Done was due"),
    ],
)
def test_a_device_that_talks_nonsense_is_lost_and_hung_up_on(
    pair: tuple[Line, Device], words: bytes, complaint: str
) -> None:
    line, device = pair
    device.sends(words)
    with pytest.raises(DeviceLostError, match=complaint):
        line.ask(status(line.number()), wire.Done, 10)
    with pytest.raises(DeviceLostError, match="is closed"):
        line.send(status(2))


def test_the_reason_for_hanging_up_is_heard_while_waiting_and_while_sending(tmp_path: Path) -> None:
    refusal = wire.Refused(id=0, kind="DeviceError", message="too many clients", advice="wait")
    with connected(tmp_path) as (line, device):
        device.says(refusal)
        device.ends()
        with pytest.raises(DeviceError, match="too many clients"):
            line.wait(line.number(), wire.Done, 10)
    (tmp_path / "npu0" / "socket").unlink()
    (tmp_path / "npu0").rmdir()
    with connected(tmp_path) as (line, device):
        device.says(refusal)
        device.ends()
        with pytest.raises(DeviceError, match="too many clients"):
            line.send(status(1))


def test_a_device_that_hangs_up_without_a_word_is_lost(pair: tuple[Line, Device]) -> None:
    line, device = pair
    device.ends()
    with pytest.raises(DeviceLostError, match="no device of that name is up"):
        line.ask(status(1), wire.Done, 10)


def test_a_device_whose_home_somebody_removed_is_lost_like_any_other(tmp_path: Path) -> None:
    with connected(tmp_path / "home") as (line, device):
        (tmp_path / "home").rename(tmp_path / "away")
        device.ends()
        with pytest.raises(DeviceLostError, match="no device of that name is up"):
            line.ask(status(1), wire.Done, 10)


def test_half_a_reply_is_waited_for_and_then_the_time_is_over(pair: tuple[Line, Device]) -> None:
    line, device = pair
    reply = wire.frame(wire.Done(id=line.number()))
    device.sends(reply[:7])
    with pytest.raises(NoAnswerError):
        line.wait(1, wire.Done, 0.01)
    device.sends(reply[7:])
    assert line.wait(1, wire.Done, 10).id == 1


def test_a_device_that_dies_while_it_writes_an_answer_is_lost(pair: tuple[Line, Device]) -> None:
    line, device = pair
    device.sends(wire.frame(wire.Done(id=1))[:7])
    device.ends()
    with pytest.raises(DeviceLostError, match="has hung up"):
        line.wait(1, wire.Done, 10)


def test_a_request_larger_than_the_sockets_buffer_arrives_whole(pair: tuple[Line, Device]) -> None:
    line, device = pair
    image = os.urandom(8 << 20)
    heard: list[wire.Request] = []
    thread = threading.Thread(target=lambda: heard.append(device.hears()))
    thread.start()
    line.send(wire.UpdateFirmware(id=1, image=image))
    thread.join()
    assert heard == [wire.UpdateFirmware(id=1, image=image)]
    device.says(wire.Done(id=1))
    assert line.wait(1, wire.Done, 10).id == 1
