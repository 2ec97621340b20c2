"""The client's end of the wire: requests out, the reply to each back, whatever order they come in."""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from typing import Final, TypeVar

from npuops.errors import DeviceLostError
from npuops.vnpu import wire
from npuops.vnpu.device_folder import DeviceFolder

SEND_LIMIT_S: Final = 60.0
_READ_BYTES: Final = 1 << 16
_LAST_WORDS_S: Final = 0.1
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(4 * 4)
_DYING_S: Final = 0.2
"""A process that is being killed closes its sockets and frees its lock in no certain order."""

R = TypeVar("R", bound=wire.Message)


class NoAnswerError(DeviceLostError):
    """The device did not answer in time; it still may."""


class Line:
    """A connection to a device. For one thread."""

    def __init__(self, folder: DeviceFolder, timeout_s: float) -> None:
        """Connect.

        Raises:
            DeviceLostError: no such device is up.
        """
        self._folder = folder
        self._reader = wire.replies()
        self._replies: dict[int, wire.Reply] = {}
        self._given_up: set[int] = set()
        self._unclaimed: deque[int] = deque()  # descriptors whose replies are not whole yet
        self._descriptors: dict[int, int] = {}  # by the number of the reply that they came with
        self._last_id = 0
        self._socket: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout_s)
        try:
            with folder.socket_address() as address:
                self._socket.connect(address)
        except OSError as error:
            raise self._lost("cannot be reached") from error
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def number(self) -> int:
        """An id for the next request."""
        self._last_id += 1
        return self._last_id

    def ask(self, request: wire.Request, kind: type[R], timeout_s: float) -> R:
        """Send a request and wait for its reply. What comes of it after that time is undone.

        Raises:
            DeviceLostError: the device is gone or does not answer in time.
            NpuopsError: what the device answered instead.
        """
        self.send(request)
        try:
            return self.wait(request.id, kind, timeout_s)
        except NoAnswerError:
            self._given_up.add(request.id)
            raise

    def send(self, request: wire.Request) -> None:
        """Send a request; its reply is for `wait`.

        Raises:
            DeviceLostError: the device is gone, or the request is longer than a frame.
        """
        connection, data = self._open_socket(), wire.frame(request)
        try:
            sent = connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise self._gone(error) from error
        if sent == len(data):
            return
        try:
            connection.settimeout(SEND_LIMIT_S)
            connection.sendall(memoryview(data)[sent:])
            connection.setblocking(False)
        except OSError as error:
            raise self._gone(error) from error
        except BaseException:
            self.close()  # half a request is on its way
            raise

    def wait(self, number: int, kind: type[R], timeout_s: float) -> R:
        """The reply to a request.

        Raises:
            NoAnswerError: not in time; it may be waited for again.
            DeviceLostError: the device is gone.
            NpuopsError: what the device answered instead.
        """
        deadline = time.monotonic() + timeout_s
        while number not in self._replies:
            self._hear_refusal()
            if not self._read(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                name = self._folder.name
                raise NoAnswerError(
                    f"{name} did not answer within {timeout_s:g} s",
                    advice=f"npuops device status {name}; if it hangs: npuops device reset {name}",
                )
        reply = self._replies.pop(number)
        if isinstance(reply, wire.Refused):
            raise wire.error_of(reply.kind, reply.message, reply.advice)
        if not isinstance(reply, kind):
            raise self._lost(f"answered {type(reply).__name__} where {kind.__name__} was due")
        return reply

    def has_come(self, number: int) -> bool:
        """Whether the reply to a request is there; False also when the connection is lost."""
        try:
            while number not in self._replies and self._read(0.0):
                pass
        except DeviceLostError:
            return False
        return number in self._replies

    def take_descriptor(self, number: int) -> int:
        """The one that came with the reply to a request.

        Raises:
            DeviceLostError: none came.
        """
        if number not in self._descriptors:
            raise self._lost("sent no memory for the tensors, or this process has too many files open")
        return self._descriptors.pop(number)

    def close(self) -> None:
        """Hang up. A second call does nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        for descriptor in (*self._unclaimed, *self._descriptors.values()):
            os.close(descriptor)
        self._unclaimed.clear()
        self._descriptors.clear()

    def _read(self, timeout_s: float) -> bool:
        """Whatever comes next, with the descriptors in it; False when nothing came within the time."""
        connection = self._open_socket()
        try:
            if not self._poll.poll(timeout_s * 1000):
                return False
            data, ancillary, _, _ = connection.recvmsg(_READ_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._lost(f"broke the connection ({error.strerror})") from error
        for _, _, numbers in ancillary:
            self._unclaimed += memoryview(numbers).cast("i")
        if not data:
            raise self._lost("has hung up")
        try:
            replies = self._reader.feed(data)
        except wire.ProtocolError as error:
            raise self._lost(f"talks nonsense: {error.message}") from error
        for reply in replies:
            self._keep(reply)
        return True

    def _keep(self, reply: wire.Reply) -> None:
        """For whoever waits; replies come in the order of their descriptors."""
        if isinstance(reply, wire.Loaded) and self._unclaimed:
            self._descriptors[reply.id] = self._unclaimed.popleft()
        if reply.id not in self._given_up:
            self._replies[reply.id] = reply
            return
        self._given_up.discard(reply.id)
        if isinstance(reply, wire.Loaded):  # nobody will ever use or unload it
            os.close(self.take_descriptor(reply.id))
            unload = wire.Unload(id=self.number(), handle=reply.handle)
            self._given_up.add(unload.id)
            self.send(unload)

    def _hear_refusal(self) -> None:
        """Raise the reason why the device hung up, if it said one: a reply to `0`."""
        reply = self._replies.get(0)
        if isinstance(reply, wire.Refused):
            self.close()
            raise wire.error_of(reply.kind, reply.message, reply.advice)

    def _gone(self, error: OSError) -> DeviceLostError:
        """It does not take what we say; it may have said why before it hung up."""
        try:
            while 0 not in self._replies and self._read(_LAST_WORDS_S):
                pass
        except DeviceLostError as lost:
            return lost
        self._hear_refusal()
        return self._lost(f"does not listen ({error.strerror or error})")

    def _open_socket(self) -> socket.socket:
        if self._socket is None:
            raise DeviceLostError(f"the connection to {self._folder.name} is closed", advice="connect again")
        return self._socket

    def _lost(self, what: str) -> DeviceLostError:
        """The connection is of no use any more; why, as far as the lock and the record tell."""
        self.close()
        name, log = self._folder.name, self._folder.log
        if self._folder.stays_up(_DYING_S):
            return DeviceLostError(f"{name} {what}", advice=f"npuops device status {name}; its log is {log}")
        again = f"npuops device up vnpu:PROFILE --name {name}"
        if self._folder.record() is None:
            return DeviceLostError(f"{name} {what}: no device of that name is up", advice=again)
        return DeviceLostError(f"{name} {what}: its daemon died", advice=f"{again}; its log is {log}")
