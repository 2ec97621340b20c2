"""A page of memory that an agent and its reaper share: the agent counts up in it, the reaper revokes in it.

What the agent does, it does in a term. The reaper revokes a term when the count stands still, puts everything back,
and says when it is done; only then may the agent begin another. An agent that was stopped in the middle of a change
learns of it before the next one, and once more after each.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

_WORDS: Final = 4
_COUNT, _TERM, _REVOKED, _DONE = range(_WORDS)


class Heartbeat:
    """Either side's view; each word has one writer, and is written in one piece."""

    def __init__(self, descriptor: int | None = None) -> None:
        """A new page, or the one behind a descriptor, which then belongs to this object."""
        if descriptor is None:
            descriptor = os.memfd_create("npuops-heartbeat")
            os.ftruncate(descriptor, mmap.PAGESIZE)
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, mmap.PAGESIZE)
        self._words = memoryview(self._map).cast("Q")
        if not self._words[_TERM]:
            self._words[_TERM] = 1

    @property
    def count(self) -> int:
        """It goes up while the agent lives."""
        return self._words[_COUNT]

    @property
    def held(self) -> bool:
        """The agent's term is not revoked."""
        return self._words[_TERM] > self._words[_REVOKED]

    def beat(self) -> None:
        """The agent's: it lives."""
        self._words[_COUNT] += 1

    def renew(self) -> bool:
        """The agent's: begin another term; False while the reaper still puts back what the last one left."""
        if self._words[_DONE] < self._words[_REVOKED]:
            return False
        self.beat()
        self._words[_TERM] = self._words[_REVOKED] + 1
        return True

    def revoke(self) -> None:
        """The reaper's: before it puts anything back."""
        self._words[_REVOKED] = self._words[_TERM]

    def done(self) -> None:
        """The reaper's: everything is put back."""
        self._words[_DONE] = self._words[_REVOKED]

    def close(self) -> None:
        """Give the memory back; the other side keeps its own view."""
        self._words.release()
        self._map.close()
        os.close(self.descriptor)


class Stall:
    """Judges whether a count stands still.

    Only time counts in which the judge itself could have seen it move: after a pause of the whole machine (a virtual
    one that was stopped, a laptop that slept) both sides get their turn first.
    """

    def __init__(self, limit_us: int) -> None:
        """Stalled when nothing moves for this long."""
        self._limit_us = limit_us
        self._count = -1
        self._at_us = 0
        self._still_us = 0

    @property
    def look_every_us(self) -> int:
        """How often to ask: each look of the reaper is a turn on a CPU that others may want."""
        return max(self._limit_us // 3, 1)

    def stalled(self, count: int, at_us: int) -> bool:
        """The count has not moved for the limit, as of this look; one that never moved has not begun."""
        waited_us = min(at_us - self._at_us, 2 * self.look_every_us)
        self._still_us = self._still_us + waited_us if count == self._count else 0
        self._count, self._at_us = count, at_us
        return count > 0 and self._still_us >= self._limit_us
