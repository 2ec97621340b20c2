"""The client's end of the wire: requests out, the reply to each back, whatever order they come in."""

from __future__ import annotations

import os
import socket
import time
from typing import Final, TypeVar

from npuops.errors import DeviceLostError
from npuops.vnpu import wire
from npuops.vnpu.device_folder import DeviceFolder

SEND_LIMIT_S: Final = 60.0
_READ_BYTES: Final = 1 << 18
_FDS: Final = 4
_DYING_S: Final = 0.2
"""A process that is being killed closes its sockets and frees its lock in no certain order."""

R = TypeVar("R", bound=wire.Message)


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
        self._descriptors: list[int] = []
        self._last_id = 0
        self._socket: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout_s)
        try:
            with folder.socket_address() as address:
                self._socket.connect(address)
        except OSError as error:
            raise self._lost("cannot be reached") from error

    def number(self) -> int:
        """An id for the next request."""
        self._last_id += 1
        return self._last_id

    def ask(self, request: wire.Request, kind: type[R], timeout_s: float) -> R:
        """Send a request and wait for its reply.

        Raises:
            DeviceLostError: the device is gone or does not answer in time.
            NpuopsError: what the device answered instead.
        """
        self.send(request)
        return self.wait(request.id, kind, timeout_s)

    def send(self, request: wire.Request) -> None:
        """Send a request; its reply is for `wait`.

        Raises:
            DeviceLostError: the device is gone.
        """
        connection = self._open_socket()
        try:
            connection.settimeout(SEND_LIMIT_S)
            connection.sendall(wire.frame(request))
        except OSError as error:
            self._hear_why()
            raise self._lost(f"does not listen ({error.strerror or error})") from error

    def wait(self, number: int, kind: type[R], timeout_s: float) -> R:
        """The reply to a request.

        Raises:
            DeviceLostError: the device is gone, or does not answer in time; then `is_given_up(number)`.
            NpuopsError: what the device answered instead.
        """
        deadline = time.monotonic() + timeout_s
        while number not in self._replies:
            if 0 in self._replies:
                self._hear_why()
            try:
                self._read(deadline)
            except TimeoutError:
                self._given_up.add(number)
                name = self._folder.name
                raise DeviceLostError(
                    f"{name} did not answer within {timeout_s:g} s",
                    advice=f"npuops device status {name}; if it hangs: npuops device reset {name}",
                ) from None
        reply = self._replies.pop(number)
        if isinstance(reply, wire.Refused):
            raise wire.error_of(reply.kind, reply.message, reply.advice)
        if not isinstance(reply, kind):
            raise self._lost(f"answered {type(reply).__name__} where {kind.__name__} was due")
        return reply

    def is_given_up(self, number: int) -> bool:
        """Whether nobody waits for a reply that may still come."""
        return number in self._given_up

    def take_descriptor(self) -> int:
        """The one that came with the last reply.

        Raises:
            DeviceLostError: none came.
        """
        if not self._descriptors:
            raise self._lost("sent no memory for the tensors")
        return self._descriptors.pop(0)

    def close(self) -> None:
        """Hang up. A second call does nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _read(self, deadline: float) -> None:
        """Whatever comes next, with the descriptors in it."""
        connection = self._open_socket()
        connection.settimeout(max(1e-6, deadline - time.monotonic()))
        try:
            data, descriptors, _, _ = socket.recv_fds(connection, _READ_BYTES, _FDS)
        except TimeoutError:
            raise
        except OSError as error:
            raise self._lost(f"broke the connection ({error.strerror})") from error
        self._descriptors += descriptors
        if not data:
            raise self._lost("has hung up")
        for reply in self._reader.feed(data):
            if reply.id in self._given_up:
                self._given_up.discard(reply.id)
            else:
                self._replies[reply.id] = reply

    def _hear_why(self) -> None:
        """Raise the reason why the device hung up, if it said one; replies to `0` are such reasons."""
        if 0 not in self._replies:
            try:
                self._read(time.monotonic() + 0.1)
            except (DeviceLostError, TimeoutError):
                return
        reply = self._replies.get(0)
        if isinstance(reply, wire.Refused):
            self.close()
            raise wire.error_of(reply.kind, reply.message, reply.advice)

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
