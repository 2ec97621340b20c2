"""Header blocks of HTTP/2: HPACK (by the `hpack` library) with a cache, and the rules for a request's fields."""

from __future__ import annotations

import re
from typing import Any, Final

import hpack

from npuops.server.http2_frames import ErrorCode, Http2Error, StreamError

Fields = tuple[tuple[bytes, bytes], ...]

_CACHED_BLOCK_BYTES: Final = 2048
_CACHED_BYTES: Final = 64 << 10
"""Of all heads that one connection has cached, by RFC 9113's count: some hundred of an honest client."""
_FIELD_BYTES: Final = 32
"""That a field counts besides its name and value (RFC 9113, section 6.5.2)."""
_UPDATES: Final = 8
"""Of the table's size, at the start of a block: two say everything (RFC 7541, section 4.2), and each costs time."""
_TABLE_BYTES: Final = 4096
"""Of the decoder's dynamic table: the protocol's default, so a peer needs not be told."""

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
"""A lower-case token (RFC 9110, section 5.6.2)."""
_BAD_VALUE: Final = re.compile(rb"[\0\r\n]|\A[ \t]|[ \t]\Z")
_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_OF_HTTP_1: Final = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})


class RequestHead:
    """The header fields of a request; one object for all requests whose block is the same, so it can carry a cache.

    Attributes:
        path: `:path`; empty for CONNECT.
        fields: the others, in their order, without the pseudo ones.
        content_length: -1 where it is not told.
        memo: whatever follows from the fields alone, kept here by who uses them.
    """

    __slots__ = ("authority", "content_length", "fields", "memo", "method", "path", "scheme")

    def __init__(self, pseudo: dict[bytes, bytes], fields: Fields, content_length: int) -> None:
        self.method = pseudo[b":method"]
        self.scheme = pseudo.get(b":scheme", b"")
        self.path = pseudo.get(b":path", b"")
        self.authority = pseudo.get(b":authority", b"")
        self.fields = fields
        self.content_length = content_length
        self.memo: Any = None


class HeaderReader:
    """Decodes the blocks of one connection.

    A block means the same as long as the dynamic table stays as it is. So what a block meant is kept until one changes
    the table; a client that calls the same method again sends the same bytes, and costs one look-up.
    """

    def __init__(self, list_bytes: int) -> None:
        """With `list_bytes`, the most that the fields of one block may have by RFC 9113's count (32 more for each)."""
        self._decoder = hpack.Decoder(max_header_list_size=list_bytes)
        self._decoder.max_allowed_table_size = _TABLE_BYTES
        self._list_bytes = list_bytes
        self._heads: dict[bytes, RequestHead] = {}
        self._heads_bytes = 0

    def request(self, block: bytes, stream_id: int) -> RequestHead:
        """The head of a request.

        Raises:
            Http2Error: the block is no HPACK, or too large.
            StreamError: it is, but no request has such fields.
        """
        head = self._heads.get(block)
        if head is None:
            fields, is_cacheable = self._decode(block)
            head = request_head(fields, stream_id)
            if is_cacheable and len(block) <= _CACHED_BLOCK_BYTES:
                self._keep(block, head, fields)
        return head

    def trailers(self, block: bytes, stream_id: int) -> Fields:
        """The fields after a request's body.

        Raises:
            Http2Error: the block is no HPACK, or too large.
            StreamError: it has pseudo or malformed fields.
        """
        fields, _ = self._decode(block)
        for name, value in fields:
            _check_field(name, value, stream_id)
        return fields

    def skip(self, block: bytes) -> None:
        """Keep the table in step with a block that nobody reads.

        Raises:
            Http2Error: the block is no HPACK, or too large.
        """
        if block not in self._heads:
            self._decode(block)

    def _keep(self, block: bytes, head: RequestHead, fields: Fields) -> None:
        size = len(block) + sum(len(name) + len(value) + _FIELD_BYTES for name, value in fields)
        if self._heads_bytes + size > _CACHED_BYTES:
            self._forget()  # fields that differ each time, such as a trace's, must not keep out what repeats
        self._heads[block] = head
        self._heads_bytes += size

    def _forget(self) -> None:
        self._heads.clear()
        self._heads_bytes = 0

    def _decode(self, block: bytes) -> tuple[Fields, bool]:
        # The library unpacks before it looks at the size. No encoder makes a list longer than the list itself is.
        if len(block) > self._list_bytes:
            raise Http2Error("the header fields are too large", code=ErrorCode.ENHANCE_YOUR_CALM)
        if _leading_updates(block) > _UPDATES:
            raise Http2Error("no HPACK: the table's size changes again and again", code=ErrorCode.COMPRESSION_ERROR)
        before = self._state()
        try:
            fields = tuple((name, value) for name, value in self._decoder.decode(block, raw=True))
        except hpack.OversizedHeaderListError as error:
            raise Http2Error("the header fields are too large", code=ErrorCode.ENHANCE_YOUR_CALM) from error
        except hpack.HPACKError as error:
            raise Http2Error(f"no HPACK: {error}", code=ErrorCode.COMPRESSION_ERROR) from error
        if self._state() == before:
            return fields, True
        self._forget()
        return fields, False

    def _state(self) -> tuple[int, int, int]:
        """Of the table: an entry that was added stands first and is a new object, so this differs after any change."""
        table = self._decoder.header_table
        self._newest = table.dynamic_entries[0] if table.dynamic_entries else None  # kept: its id stays its own
        return id(self._newest), len(table.dynamic_entries), table.maxsize


class HeaderBlock:
    """A block that comes in several frames; nothing else may come in between.

    Attributes:
        stream_id: whose; 0 while there is none.
        flags: of the HEADERS frame that began it.
    """

    def __init__(self, continuations: int, most_bytes: int) -> None:
        self._most, self._most_bytes = continuations + 1, most_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self.stream_id = 0
        self.flags = 0

    def begin(self, stream_id: int, flags: int, part: bytes) -> None:
        """The HEADERS frame."""
        self.stream_id, self.flags = stream_id, flags
        self._parts, self._size = [part], len(part)

    def add(self, part: bytes) -> None:
        """A CONTINUATION frame.

        Raises:
            Http2Error: of nothing, or of a block that has too many, or too large ones.
        """
        if not self.stream_id:
            raise Http2Error("CONTINUATION of nothing")
        self._parts.append(part)
        self._size += len(part)
        if len(self._parts) > self._most or self._size > self._most_bytes:
            raise Http2Error("a header block that does not end", code=ErrorCode.ENHANCE_YOUR_CALM)

    def end(self) -> bytes:
        """The whole block."""
        block = b"".join(self._parts)
        self.stream_id, self._parts = 0, []
        return block


def request_head(fields: Fields, stream_id: int = 0) -> RequestHead:
    """Check the fields of a request (RFC 9113, section 8).

    Raises:
        StreamError: they are malformed.
    """
    pseudo: dict[bytes, bytes] = {}
    count = 0
    for name, value in fields:
        if not name.startswith(b":"):
            break
        if name not in _PSEUDO or name in pseudo:
            raise StreamError(f"pseudo field {name!r} is unknown or doubled", stream_id=stream_id)
        if _BAD_VALUE.search(value):
            raise StreamError(f"field {name!r} has a forbidden value", stream_id=stream_id)
        pseudo[name] = value
        count += 1
    others = fields[count:]
    length = -1
    for name, value in others:
        _check_field(name, value, stream_id)
        if name == b"content-length":
            if not value.isdigit() or len(value) > 18 or length not in (-1, int(value)):
                raise StreamError("content-length is no number, or two", stream_id=stream_id)
            length = int(value)
    _check_pseudo(pseudo, stream_id)
    return RequestHead(pseudo, others, length)


def _leading_updates(block: bytes) -> int:
    """How many changes of the table's size a block begins with, as far as that matters."""
    count = at = 0
    while count <= _UPDATES and at < len(block) and block[at] & 0xE0 == 0x20:
        is_long = block[at] & 0x1F == 0x1F
        at += 1
        while is_long and at < len(block):
            is_long = block[at] >= 0x80
            at += 1
        count += 1
    return count


def literal(name: bytes, value: bytes) -> bytes:
    """One field for a response's block: never indexed, so that it does not depend on the connection's table."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    length = len(text)
    if length < 127:
        return bytes((length,)) + text
    length -= 127
    prefix = bytearray(b"\x7f")
    while length >= 128:
        prefix.append(length & 127 | 128)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + text


def _check_pseudo(pseudo: dict[bytes, bytes], stream_id: int) -> None:
    method = pseudo.get(b":method", b"")
    if not method:
        raise StreamError("a request without :method", stream_id=stream_id)
    has_target = bool(pseudo.get(b":scheme")) and bool(pseudo.get(b":path"))
    if method == b"CONNECT":
        if b":scheme" in pseudo or b":path" in pseudo:
            raise StreamError("CONNECT with a path", stream_id=stream_id)
    elif not has_target:
        raise StreamError("a request without :scheme or :path", stream_id=stream_id)


def _check_field(name: bytes, value: bytes, stream_id: int) -> None:
    if not _NAME.fullmatch(name):
        raise StreamError(f"field name {name[:80]!r} is not a lower-case token, or out of place", stream_id=stream_id)
    if _BAD_VALUE.search(value):
        raise StreamError(f"field {name!r} has a forbidden value", stream_id=stream_id)
    if name in _OF_HTTP_1 or (name == b"te" and value != b"trailers"):
        raise StreamError(f"field {name!r} is of HTTP/1", stream_id=stream_id)
