"""gRPC's messages within a stream of bytes: a flag, a length, and so many bytes, compressed where the flag says so."""

from __future__ import annotations

import zlib
from struct import Struct
from typing import Final

from npuops.server.grpc_status import GrpcCallError
from npuops.server.status import GrpcStatus

PREFIX: Final = Struct(">BI")
"""Flag and length before each message."""

UNPACK_HERE_BYTES: Final = 4096
"""A longer compressed message is opened by another thread: a thousand times as many bytes may come out of it."""
_COMPACT_BYTES: Final = 64 << 10

_WINDOW_BITS: Final = {b"gzip": 31, b"deflate": 15}


class Room:
    """For messages that are not whole yet, over all calls of a server.

    Attributes:
        used: bytes that they have by now.
    """

    __slots__ = ("_most", "used")

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self.used = 0

    def take(self, size: int) -> None:
        """So many bytes more; negative to give them back.

        Raises:
            GrpcCallError: that is more than there is room for. They count all the same, until they are given back.
        """
        self.used += size
        if size > 0 and self.used > self._most:
            raise GrpcCallError(
                "the server has no room for more unfinished messages",
                advice="send fewer large messages at once",
                status=GrpcStatus.RESOURCE_EXHAUSTED,
            )


class MessageAssembly:
    """Makes messages of the pieces that come, one at a time: what is not asked for yet stays as it came.

    Attributes:
        size: bytes that no message was made of yet.
        whole: a message that is there while the end of its call is not.
        is_ended: the last piece came.
    """

    __slots__ = ("_bytes", "_encoding", "_lent", "_most", "_room", "_start", "is_ended", "size", "whole")

    def __init__(self, encoding: bytes, most_bytes: int, room: Room) -> None:
        """For messages of at most `most_bytes`, before and after they are decompressed."""
        self._encoding, self._most, self._room = encoding, most_bytes, room
        self._bytes = bytearray()
        self._start = 0
        self._lent = 0
        self.size = 0
        self.whole: bytes | None = None
        self.is_ended = False

    def add(self, piece: bytes) -> None:
        """The next piece.

        Raises:
            GrpcCallError: there is no room for it.
        """
        self._bytes += piece  # a list of pieces would cost an object for each byte of a malicious client
        self.size += len(piece)
        self._room.take(len(piece))

    def take(self) -> tuple[int, bytes] | None:
        """The next message as it came, behind its flag; None while it is not whole.

        Raises:
            GrpcCallError: it is too large.
        """
        if self.size < PREFIX.size:
            return None
        flag, length = PREFIX.unpack_from(self._bytes, self._start)
        if length > self._most:
            raise too_large(length, self._most)
        used = PREFIX.size + length
        if self.size < used:
            return None
        with memoryview(self._bytes) as data:
            message = bytes(data[self._start + PREFIX.size : self._start + used])
        self._start += used
        self.size -= used
        self._room.take(-used)
        if self._start >= _COMPACT_BYTES or not self.size:
            del self._bytes[: self._start]
            self._start = 0
        return flag, message

    def keep(self, message: bytes) -> None:
        """The one message of a call whose end has not come.

        Raises:
            GrpcCallError: there is no room.
        """
        self.whole = message
        self._room.take(len(message))

    def lend(self, size: int) -> None:
        """So many bytes of a message are with somebody else; 0 when they are back.

        Raises:
            GrpcCallError: there is no room for them.
        """
        change, self._lent = size - self._lent, size  # what is refused counts until it is dropped
        self._room.take(change)

    def drop(self) -> None:
        """Nobody waits for the rest."""
        self._room.take(-self.size - self._lent - len(self.whole or b""))
        self._bytes, self._start, self._lent, self.size, self.whole = bytearray(), 0, 0, 0, None

    def opened(self, flag: int, message: bytes) -> bytes:
        """A message without its compression.

        Raises:
            GrpcCallError: it has none, another one, or becomes too large.
        """
        if flag == 0:
            return message
        bits = _WINDOW_BITS.get(self._encoding)
        if flag != 1 or bits is None:
            raise GrpcCallError(f"a message has flag {flag}, and its call grpc-encoding {self._encoding.decode()!r}")
        inflate = zlib.decompressobj(bits)
        try:
            data = inflate.decompress(message, self._most + 1)
        except zlib.error as error:
            raise GrpcCallError(f"a message is no {self._encoding.decode()}: {error}") from error
        if len(data) > self._most:
            raise too_large(len(data), self._most)
        if not inflate.eof or inflate.unused_data:
            where = "goes on after the end" if inflate.eof else "ends in the middle"
            raise GrpcCallError(f"a message {where} of its {self._encoding.decode()}")
        return data


def too_large(length: int, most: int) -> GrpcCallError:
    """A message of more bytes than are taken."""
    return GrpcCallError(
        f"a message of {length} bytes or more, of at most {most}",
        advice="send less at once, or raise the server's limit",
        status=GrpcStatus.RESOURCE_EXHAUSTED,
    )
