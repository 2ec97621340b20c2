"""Bodies that do not come as they are: in pieces, in chunks, or compressed."""

from __future__ import annotations

import zlib
from typing import Any, Final

import httptools

from npuops.errors import DataError, TooLargeError
from npuops.runtime.job import Bytes

UNPACK_HERE_BYTES: Final = 4096
"""A longer body is unpacked by another thread: a thousand times as many bytes may come out of it."""

_LARGE_BYTES: Final = 4096
_FRAMING_TIMES: Final = 8
_FRAMING_BYTES: Final = 64 * 1024
# The parser gets a head of our own: what the client's says (Upgrade, Expect) has been dealt with.
_HEAD: Final = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


class Room:
    """Bytes that all bodies which are not whole may take together.

    Attributes:
        left_bytes: below 0 somebody has to go.
    """

    __slots__ = ("left_bytes",)

    def __init__(self, size_bytes: int) -> None:
        self.left_bytes = size_bytes


class Pieces:
    """A body whose length is known, put together from what comes.

    Large pieces stay as they came and are joined once; small ones are gathered as they come, because a client that
    trickles would take the memory of an object for every byte.

    Attributes:
        missing: bytes that did not come yet.
    """

    __slots__ = ("_pieces", "missing")

    def __init__(self, length: int) -> None:
        self.missing = length
        self._pieces: list[bytes | memoryview | bytearray] = []

    def add(self, data: bytes | memoryview) -> None:
        """`missing` bytes at most; they must not change any more."""
        self.missing -= len(data)
        if len(data) >= _LARGE_BYTES:
            self._pieces.append(data)
        elif self._pieces and isinstance(self._pieces[-1], bytearray):
            self._pieces[-1] += data
        else:
            self._pieces.append(bytearray(data))

    def whole(self) -> Bytes:
        """The body, once nothing is missing."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


class Chunks:
    """A body in chunks, read by llhttp.

    Attributes:
        overran: bytes of another request came with the last of this one, and are lost.
    """

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes`: of the body."""
        self.overran = False
        self._limit_bytes = limit_bytes
        self._came = 0
        self._body = bytearray()
        self._done = False
        self._parser: Any = httptools.HttpRequestParser(self)
        self._parser.feed_data(_HEAD)

    def feed(self, data: bytes) -> bytearray | None:
        """The body, once it is whole.

        Raises:
            DataError: a chunk is malformed.
            TooLargeError: too many bytes, of the body or of what stands around the chunks.
        """
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._done:
                raise DataError(f"a chunk of the body is malformed: {error}") from error
            self.overran = True
        self._came += len(data)
        if len(self._body) > self._limit_bytes:
            raise TooLargeError(f"the body has more than {self._limit_bytes} bytes", advice="send less at once")
        if not self._done and self._came > _FRAMING_TIMES * len(self._body) + _FRAMING_BYTES:
            raise TooLargeError("the chunks are small and many, or the trailer is long", advice="send larger chunks")
        return self._body if self._done else None

    def on_message_begin(self) -> None:
        """A second message within the same bytes: its part is lost, so the connection must end after the answer."""
        self.overran = self.overran or self._done

    def on_body(self, data: bytes) -> None:
        """A piece of it."""
        if not self._done:
            self._body += data

    def on_message_complete(self) -> None:
        """All of it came."""
        self._done = True


def unpacked(body: Bytes, encoding: str, limit_bytes: int) -> Bytes:
    """The body without its compression.

    Args:
        body: as it came.
        encoding: the content encoding in lower case; "" for none.
        limit_bytes: of what comes out.

    Raises:
        DataError: damaged, or an encoding that is not known.
        TooLargeError: it unpacks to more than is taken.
    """
    if not encoding:
        return body
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise DataError(f"content encoding {encoding[:40]!r} is not taken", advice="gzip, deflate or none")
    reader = zlib.decompressobj(zlib.MAX_WBITS | 32)  # finds out by itself whether it is gzip or zlib
    try:
        whole = reader.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise DataError(f"the body is not {encoding}: {error}") from error
    if len(whole) > limit_bytes:
        raise TooLargeError(f"the body unpacks to more than {limit_bytes} bytes", advice="send less at once")
    if not reader.eof:
        raise DataError(f"the {encoding} body is cut off")
    if reader.unused_data:
        raise DataError(f"{len(reader.unused_data)} bytes follow the end of the {encoding} body")
    return whole
