"""What an agent and its reaper share: a page in which the agent counts up and the reaper revokes, and an alarm.

What the agent does, it does in a term. The reaper revokes a term when the count stands still, puts everything back,
and says when it is done; only then may the agent begin another. An agent that was stopped in the middle of a change
learns of it before the next one, and once more after each.

Each beat puts the alarm off, so the reaper sleeps while the agent lives. When it rings the agent still has a third of
the limit: after a pause of the whole machine (a virtual one that was stopped, a laptop that slept) the alarm may ring
before the agent had its turn.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

from npuops.hostsched.alarm import Alarm

_WORDS: Final = 4
_COUNT, _TERM, _REVOKED, _DONE = range(_WORDS)


class Heartbeat:
    """Either side's view; each word has one writer, and is written in one piece."""

    def __init__(self, limit_us: int, descriptors: tuple[int, int] | None = None) -> None:
        """A new page and alarm, or those behind descriptors, which then belong to this object.

        Args:
            limit_us: an agent whose count stands still for so long is taken for stuck.
            descriptors: of page and alarm.

        Raises:
            NoSuchKnobError: the kernel gives no timer.
        """
        self.grace_us = max(limit_us // 3, 1)
        """So long the agent has after the alarm rang."""
        page, timer = (None, None) if descriptors is None else descriptors
        self.alarm = Alarm(max(limit_us - self.grace_us, 1), timer)
        if page is None:
            page = os.memfd_create("npuops-heartbeat")
            os.ftruncate(page, mmap.PAGESIZE)
        self.descriptors = page, self.alarm.descriptor
        self._map = mmap.mmap(page, mmap.PAGESIZE)
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
        """The agent's: it lives.

        Raises:
            NoSuchKnobError: the kernel does not set the timer.
        """
        self.alarm.put_off()  # first: stopped in between, it would never be missed
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
        """Give the memory and the alarm back; the other side keeps its own view."""
        self._words.release()
        self._map.close()
        os.close(self.descriptors[0])
        self.alarm.close()
