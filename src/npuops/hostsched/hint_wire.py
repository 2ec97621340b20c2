"""A hint as bytes: 64 of them, little-endian, without a library on the other side (`npuops_hint.h` writes the same).

::

    0  magic "NPUH"   4  version 1   5  kind          6  length of the message, u16
    8  tid, u32      12  says, u32  16  sent_us, i64  24  slo_us, i64
    32 slack_us, i64 40  queued, u64 48 served, u64   56  missed, u64

Whoever adds a field appends it, raises the length and takes a new bit of `says`; a reader takes what it knows and
leaves the rest. Whoever changes what is meant by a field that is there raises the version.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from npuops.hostsched.hint import Kind

VERSION: Final = 1
SIZE: Final = 64
MAX_SIZE: Final = 256
"""Of a message that some later version may send."""
LONGEST_US: Final = 3_600_000_000
"""An hour: an SLO or a slack beyond that is a mistake of units."""
ABOUT: Final = slice(8, 16)
"""Bytes that say whom it is about (and which fields are meant): of two that are equal here the later one counts."""
_MAGIC: Final = b"NPUH"
_BEGINNING: Final = _MAGIC + bytes([VERSION])
_FIELDS: Final = struct.Struct("<4sBBHIIqqqQQQ")
_SLO, _SLACK, _QUEUED, _PROCESS = 1, 2, 4, 8
_MOST: Final = (1 << 63) - 1
_KINDS: Final = (None, Kind.LATENCY, Kind.BATCH, Kind.BACKGROUND)


@dataclass(frozen=True, slots=True)
class Word:
    """What an application says of one thread, or of a whole process.

    Attributes:
        tid: the thread; 0 for the process that says it, all its threads.
        whole: `tid` stands for all threads of its process.
        sent_us: when it was said, by the machine's monotonic clock; 0 where the sender has none.
        kind: what it is for; None if not said.
        slo_us: answers should take no longer; None without one.
        slack_us: time left to the most urgent request when it was said; None if not said.
        queued: requests that wait or are worked on; None if not said.
        served: answers so far.
        missed: of these, too late.
    """

    tid: int = 0
    whole: bool = False
    sent_us: int = 0
    kind: Kind | None = None
    slo_us: int | None = None
    slack_us: int | None = None
    queued: int | None = None
    served: int = 0
    missed: int = 0


def encode(word: Word) -> bytes:
    """As `SIZE` bytes. Times beyond `LONGEST_US` are cut to it: a late request stays late."""
    says = (
        (_SLO if word.slo_us is not None else 0)
        | (_SLACK if word.slack_us is not None else 0)
        | (_QUEUED if word.queued is not None else 0)
        | (_PROCESS if word.whole else 0)
    )
    return _FIELDS.pack(
        _MAGIC,
        VERSION,
        _KINDS.index(word.kind),
        SIZE,
        word.tid,
        says,
        word.sent_us,
        0 if word.slo_us is None else min(max(word.slo_us, 1), LONGEST_US),
        0 if word.slack_us is None else min(max(word.slack_us, -LONGEST_US), LONGEST_US),
        word.queued or 0,
        word.served,
        word.missed,
    )


def may_be_hint(data: bytes) -> bool:
    """Worth decoding: a fifth of its cost, for those that are superseded anyway."""
    return len(data) >= SIZE and data[:5] == _BEGINNING


def decode(data: bytes) -> Word | str:
    """The word, or what is wrong with it."""
    if len(data) < SIZE:
        return f"{len(data)} bytes, and a hint has at least {SIZE}"
    magic, version, kind, length, tid, says, sent_us, slo_us, slack_us, queued, served, missed = _FIELDS.unpack_from(
        data
    )
    if magic != _MAGIC or version != VERSION:
        return f"no hint of version {VERSION}"
    if length != len(data):
        return f"it says {length} bytes, and has {len(data)}"
    if kind >= len(_KINDS):
        return f"kind {kind} is unknown"
    if says & _SLO and not 0 < slo_us <= LONGEST_US:
        return f"an SLO of {slo_us} µs"
    if says & _SLACK and abs(slack_us) > LONGEST_US:
        return f"a slack of {slack_us} µs"
    if max(queued, served) > _MOST or missed > served:
        return f"{queued} queued, {missed} missed of {served} served"
    return Word(
        tid=tid,
        whole=bool(says & _PROCESS),
        sent_us=sent_us,
        kind=_KINDS[kind],
        slo_us=slo_us if says & _SLO else None,
        slack_us=slack_us if says & _SLACK else None,
        queued=queued if says & _QUEUED else None,
        served=served,
        missed=missed,
    )
