"""One client's socket as the device sees it: bytes in, messages out, replies and descriptors back, never waiting."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from typing import Final

from npuops.vnpu.wire import Message, ProtocolError, Request, frame, requests

_READ_BYTES: Final = 1 << 14
"""At once: some hundred requests at most, so that one client cannot keep the others waiting for long."""
_UNREAD_LIMIT_BYTES: Final = 4 << 20
_CREDENTIALS: Final = struct.Struct("3i")


class Link:
    """A connection. `key` is never used again, unlike its descriptor.

    Attributes:
        pid, uid: of the process that connected, by the kernel's word.
    """

    def __init__(self, key: int, connection: socket.socket) -> None:
        """Take the connection over."""
        self.key = key
        self._socket = connection
        self._reader = requests()
        self._out: deque[tuple[bytes, int | None]] = deque()
        self._out_bytes = 0
        connection.setblocking(False)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid, self.uid, _ = _CREDENTIALS.unpack(credentials)

    def fileno(self) -> int:
        """Of the socket."""
        return self._socket.fileno()

    def receive(self) -> list[Request] | None:
        """The requests that are whole by now; None when the client is gone.

        Raises:
            ProtocolError: it talks nonsense.
        """
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return self._reader.feed(data) if data else None

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """Queue a reply, with a descriptor that is closed once it is through, and send what goes at once.

        Raises:
            ProtocolError: the client reads so little that its replies pile up.
            OSError: it is gone.
        """
        data = frame(message)
        self._out.append((data, descriptor))
        self._out_bytes += len(data)
        self.flush()
        if self._out_bytes > _UNREAD_LIMIT_BYTES:
            raise ProtocolError(f"{self._out_bytes} bytes of replies were not read")

    def flush(self) -> None:
        """Send what the socket takes now.

        Raises:
            OSError: the client is gone.
        """
        while self._out:
            data, descriptor = self._out[0]
            try:
                if descriptor is None:
                    sent = self._socket.send(data)
                else:
                    sent = socket.send_fds(self._socket, [data], [descriptor])
                    os.close(descriptor)
            except BlockingIOError:
                return
            self._out_bytes -= sent
            if sent == len(data):
                self._out.popleft()
            else:
                self._out[0] = (data[sent:], None)

    @property
    def is_stuck(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._out)

    def close(self) -> None:
        """Hang up; descriptors that were not sent are closed."""
        for _, descriptor in self._out:
            if descriptor is not None:
                os.close(descriptor)
        self._out.clear()
        self._socket.close()
