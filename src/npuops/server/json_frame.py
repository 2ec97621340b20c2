"""What stands around the data of whole JSON requests, byte for byte: a client writes it the same way each time.

A text that begins and goes on as one that was read, with other JSON values where that had its data, means the same: so
only the values are parsed. Any doubt about a text (its `id` is neither in front nor last, it has an escape, a gap too
many) keeps it from being learnt or found, and it is read as a whole.
"""

from __future__ import annotations

import re
from operator import itemgetter
from typing import Final, NamedTuple

from npuops.runtime.signature import Shape
from npuops.server.datatypes import Datatype
from npuops.server.infer_plan import InferPlan
from npuops.server.plan_cache import split_id

FRAME_BYTES: Final = 4096
"""A longer one is not kept."""

FRAMES_LIMIT: Final = 256
"""Of one model version; beyond, all are forgotten, and those in use come back."""

_PER_BEGINNING: Final = 4
"""Frames that begin alike; of further ones nothing is learnt, for each would be tried in vain."""

_DATA: Final = b'"data":'
_ANY_DATA: Final = re.compile(rb'"data"[ \t\r\n]*: ?')
_LAST_ID: Final = re.compile(rb',\s*"id"\s*:\s*("[ !#-\[\]-~]{0,256}")\s*\}\Z')
_LAST_ID_BYTES: Final = 300
_AFTER_NUMBERS: Final = re.compile(rb'["}]')


class Frame(NamedTuple):
    """A text without its data.

    Attributes:
        plan: of the request.
        inputs: whose data stand in the text, in its order: as `plan.json_inputs`.
        gaps: behind the data of each input but the last, up to the next one's.
        end: behind the last data.
    """

    plan: InferPlan
    inputs: tuple[tuple[int, str, Datatype, Shape], ...]
    gaps: tuple[bytes, ...]
    end: bytes

    def cut(self, text: bytes, at: int) -> list[bytes] | None:
        """What stands where the data of a text must be, of which the first begin at `at`; None: another frame's."""
        stop = len(text) - len(self.end)
        if stop < at or not text.endswith(self.end):
            return None
        pieces: list[bytes] = []
        for gap in self.gaps:
            found = text.find(gap, at, stop)
            if found < 0:
                return None
            pieces.append(text[at:found])
            at = found + len(gap)
        pieces.append(text[at:stop])
        return pieces


class Frames:
    """Of one model version."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._by_beginning: dict[bytes, list[Frame]] = {}
        self._size = 0

    def find(self, text: bytes) -> tuple[Frame, list[bytes], bytes] | None:
        """The frame of a text if it was learnt, what stands where its data must be, and its `id` as JSON text."""
        beginning, identity = _beginning(text), b""
        at = len(beginning)
        frames = self._by_beginning.get(beginning)
        if frames is None:
            beginning, identity = split_id(beginning)
            frames = self._by_beginning.get(beginning)
            if frames is None:
                return None
        for frame in frames:
            pieces = frame.cut(text, at)
            if pieces is not None:
                return frame, pieces, identity
        if identity:
            return None
        text, identity = _split_last_id(text)
        for frame in frames if identity else ():
            pieces = frame.cut(text, at)
            if pieces is not None:
                return frame, pieces, identity
        return None

    def learn(self, text: bytes, plan: InferPlan, identity: bytes) -> None:
        """Keep the frame of a text that was read, where all its data are numbers."""
        inputs = tuple(sorted(plan.json_inputs, key=itemgetter(0)))
        beginning = _beginning(text)
        begin = len(beginning)
        beginning, found = split_id(beginning)
        if identity and not found:
            text, found = _split_last_id(text)
        known = self._by_beginning.get(beginning, ())
        if found != identity or len(known) >= _PER_BEGINNING or b"\\" in text:
            return
        if any(datatype.wire.kind not in "iuf" for _, _, datatype, _ in inputs):
            return
        # Without escapes, `"data"` and a colon is that key; who has as many inputs with data has no other of that name.
        starts = [match.end() for match in _ANY_DATA.finditer(text)]
        if len(starts) != len(inputs) or starts[0] != begin:
            return
        gaps: list[bytes] = []
        for start, following in zip(starts, (*starts[1:], len(text)), strict=True):
            after = _AFTER_NUMBERS.search(text, start)
            stop = text.rfind(b"]", start, after.start()) + 1 if after is not None else 0
            if stop <= start or not text.startswith(b"[", start):
                return
            gaps.append(text[stop:following])
        if len(beginning) + sum(map(len, gaps)) <= FRAME_BYTES:
            self._keep(beginning, Frame(plan, inputs, tuple(gaps[:-1]), gaps[-1]))

    def _keep(self, beginning: bytes, frame: Frame) -> None:
        if self._size >= FRAMES_LIMIT:
            self._by_beginning.clear()
            self._size = 0
        frames = self._by_beginning.setdefault(beginning, [])
        frames.append(frame)
        frames.sort(key=lambda each: -len(each.end))  # a short end may be the end of a longer one
        self._size += 1


def _beginning(text: bytes) -> bytes:
    """Up to where the data of the first input begin, with the blank that Python writes there."""
    at = text.find(_DATA) + len(_DATA)
    return text[: at + 1] if text[at : at + 1] == b" " else text[:at]


def _split_last_id(text: bytes) -> tuple[bytes, bytes]:
    """A text without the `id` that it ends with, and that as JSON text, as `split_id` does in front."""
    if not text.endswith((b'"}', b"\n}")):
        return text, b""
    found = _LAST_ID.search(text, max(0, len(text) - _LAST_ID_BYTES))
    return (text[: found.start()] + text[found.end(1) :], found[1]) if found is not None else (text, b"")
