"""Bodies that do not come as they are: in chunks, or compressed."""

from __future__ import annotations

import zlib
from typing import Any

import httptools

from npuops.errors import DataError, TooLargeError
from npuops.runtime.job import Bytes


class Chunks:
    """A body in chunks, read by llhttp.

    Attributes:
        overran: bytes of another request came with the last of this one, and are lost.
    """

    def __init__(self, head: bytes, limit_bytes: int) -> None:
        """`head`: of the request, as it came."""
        self.overran = False
        self._limit_bytes = limit_bytes
        self._body = bytearray()
        self._done = False
        self._parser: Any = httptools.HttpRequestParser(self)
        self._parser.feed_data(head)

    def feed(self, data: bytes) -> bytearray | None:
        """The body, once it is whole.

        Raises:
            DataError: a chunk is malformed.
            TooLargeError: too many bytes.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._done:
                raise DataError(f"a chunk of the body is malformed: {error}") from error
            self.overran = True
        if len(self._body) > self._limit_bytes:
            raise TooLargeError(f"the body has more than {self._limit_bytes} bytes")
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

    Raises:
        DataError: damaged, or an encoding that is not known.
        TooLargeError: it unpacks to more than is taken.
    """
    if encoding in {"", "identity"}:
        return body
    if encoding not in {"gzip", "deflate"}:
        raise DataError(f"content encoding {encoding[:40]!r} is not taken", advice="gzip, deflate or none")
    reader = zlib.decompressobj(zlib.MAX_WBITS | 32)  # finds out by itself whether it is gzip or zlib
    try:
        whole = reader.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise DataError(f"the body is not {encoding}: {error}") from error
    if len(whole) > limit_bytes:
        raise TooLargeError(f"the body unpacks to more than {limit_bytes} bytes")
    if not reader.eof:
        raise DataError(f"the {encoding} body is cut off")
    return whole
