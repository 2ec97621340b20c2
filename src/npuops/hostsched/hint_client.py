"""For applications: say that somebody waits. A microsecond or two a request; without an agent, nothing happens.

    hints = HintClient(slo_ms=5)
    with hints.request():
        answer()

Only the standard library is needed, and nothing here waits or fails because of the agent.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from npuops.errors import OptionError
from npuops.hostsched.hint import Kind
from npuops.hostsched.hint_line import HintLine, now_us
from npuops.hostsched.hint_wire import LONGEST_US, Word

INTERVAL_US: Final = 10_000
"""Between two words of one client at least; with a word for each thread, times the number of threads."""
REFRESH_US: Final = 400_000
"""A word is said again after so long, so that a long request is still known and a new agent hears of it."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Tally:
    """Of one thread, or of the whole process.

    Attributes:
        tid: the thread; 0: the process.
        due: of each request that is not answered, its deadline.
        served: answers.
        missed: of these, late.
    """

    tid: int
    due: dict[int, int | None]
    served: int = 0
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One that is being worked on: hand it to `done`, from whichever thread.

    Attributes:
        number: of the request.
        tally: whose it is.
    """

    number: int
    tally: Tally


class HintClient:
    """Counts requests, and tells the agent. Safe for threads, and for programs that fork."""

    def __init__(
        self,
        kind: Kind | str = Kind.LATENCY,
        *,
        slo_ms: float | None = None,
        per_thread: bool = False,
        background: bool = True,
        path: str | None = None,
    ) -> None:
        """Says at once what this process is for.

        Args:
            kind: `latency`, `batch` or `background`.
            slo_ms: answers should take no longer.
            per_thread: each thread that works on requests is told of by itself, others not at all.
            background: a thread of the client says what came too soon after the last word, and says all again from
                time to time. Without it that is done with the next request, and an agent that starts later hears of
                this process only then.
            path: of the agent's socket; None: as `hint_place.places` says.

        Raises:
            OptionError: there is no such kind, or the SLO is none.
        """
        if kind not in list(Kind):
            raise OptionError(f"there is no kind {kind!r}", advice=", ".join(Kind))
        if slo_ms is not None and not 0.001 <= slo_ms <= LONGEST_US / 1000:
            raise OptionError(f"an SLO of {slo_ms} ms", advice="from 0.001 ms to an hour")
        self.kind = Kind(kind)
        self.slo_us = None if slo_ms is None else round(slo_ms * 1000)
        self._per_thread = per_thread
        self._background = background
        self._path = path
        self._begin()
        _CLIENTS.add(self)
        self._say_all(now_us())
        if background:
            self._start()

    @property
    def sent(self) -> int:
        """Words that an agent was sent."""
        return self._line.sent

    @property
    def unsent(self) -> int:
        """Words that nobody listened to."""
        return self._line.unsent

    def began(self, deadline_us: int | None = None) -> Request:
        """A request came.

        Args:
            deadline_us: by `time.monotonic_ns() // 1000`; None: an SLO from now.
        """
        at_us = now_us()
        if deadline_us is None and self.slo_us is not None:
            deadline_us = at_us + self.slo_us
        with self._lock:
            self._number += 1
            tally = self._tally()
            tally.due[self._number] = deadline_us
            self._changed(tally, at_us)
            return Request(self._number, tally)

    def done(self, request: Request) -> None:
        """It was answered; late if that was after its deadline. A second call does nothing."""
        at_us = now_us()
        with self._lock:
            tally = request.tally
            if request.number not in tally.due or tally not in self._tallies:  # of a parent that forked
                return
            deadline_us = tally.due.pop(request.number)
            tally.served += 1
            tally.missed += deadline_us is not None and at_us > deadline_us
            self._changed(tally, at_us)

    @contextmanager
    def request(self, deadline_us: int | None = None) -> Iterator[Request]:
        """Between `began` and `done`, also if it fails."""
        begun = self.began(deadline_us)
        try:
            yield begun
        finally:
            self.done(begun)

    def refresh(self) -> None:
        """Say everything now: for programs without the background thread."""
        with self._lock:
            self._say_all(now_us())

    def close(self) -> None:
        """The agent forgets what was said. A second call does nothing."""
        with self._lock:
            self._closed = True
            self._wake.set()
            self._line.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        """As it is at first; also in the child of a fork, which speaks for itself from its first request on."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._line = HintLine(self._path)
        self._number = 0
        self._meetings = 0
        self._said_us = 0
        self._closed = False
        self._dirty: set[Tally] = set()
        self._is_asked = False
        self._own = threading.local()
        self._process = Tally(0, {})
        self._tallies: weakref.WeakSet[Tally] = weakref.WeakSet()
        if not self._per_thread:
            self._tallies.add(self._process)
        self._thread: threading.Thread | None = None

    def _start(self) -> None:
        # It holds no client: one that nobody keeps ends, and with it its thread.
        self._thread = threading.Thread(
            target=_work, args=(weakref.ref(self), self._wake), name="npuops-hints", daemon=True
        )
        self._thread.start()

    def _tally(self) -> Tally:
        if not self._per_thread:
            return self._process
        found: Tally | None = getattr(self._own, "tally", None)
        if found is None:
            found = self._own.tally = Tally(threading.get_native_id(), {})
            self._tallies.add(found)
        return found

    def _changed(self, tally: Tally, at_us: int) -> None:
        """Say it, unless the last word was said a moment ago."""
        if self._closed:
            return
        if self._background and self._thread is None:  # after a fork
            self._start()
        self._dirty.add(tally)
        if at_us - self._said_us >= self._interval_us():
            self._say_dirty(at_us)
        elif self._background and not self._is_asked:
            self._is_asked = True
            self._wake.set()

    def _interval_us(self) -> int:
        return INTERVAL_US * max(1, len(self._tallies)) if self._per_thread else INTERVAL_US

    def _say_all(self, at_us: int) -> None:
        if not self._closed:
            self._dirty.update(self._tallies)
            self._say_dirty(at_us)

    def _say_dirty(self, at_us: int) -> None:
        """What does not get through is not tried again: the next word says more."""
        self._said_us = at_us
        if not self._line.is_open(at_us):
            self._line.unsent += len(self._dirty)
        else:
            if self._line.meetings != self._meetings:  # a new agent knows nothing yet
                self._meetings = self._line.meetings
                self._dirty.update(self._tallies)
            for tally in self._dirty:
                self._line.send(self._word(tally, at_us))
        self._dirty.clear()

    def _word(self, tally: Tally, at_us: int) -> Word:
        first_us = min((due_us for due_us in tally.due.values() if due_us is not None), default=None)
        return Word(
            tid=tally.tid,
            sent_us=at_us,
            kind=self.kind,
            slo_us=self.slo_us,
            slack_us=None if first_us is None else first_us - at_us,
            queued=len(tally.due),
            served=tally.served,
            missed=tally.missed,
        )

    def _turn(self) -> float | None:
        """What the background thread does when it wakes; gives the seconds to rest, or None: that was all."""
        with self._lock:
            if self._closed:
                return None
            self._wake.clear()
            at_us = now_us()
            if at_us - self._said_us >= REFRESH_US:
                self._say_all(at_us)
            elif self._dirty and at_us - self._said_us >= self._interval_us():
                self._say_dirty(at_us)
            self._is_asked = bool(self._dirty)
            rest_us = self._interval_us() if self._is_asked else REFRESH_US
            return max(self._said_us + rest_us - at_us, 100) / 1e6

    def _after_fork(self) -> None:
        """In the child: the lock may be held by a thread that is not here, and the connection is the parent's."""
        self._line.close()
        closed = self._closed
        self._begin()
        self._closed = closed


_CLIENTS: Final[weakref.WeakSet[HintClient]] = weakref.WeakSet()


def _work(client: weakref.ref[HintClient], wake: threading.Event) -> None:
    while (found := client()) is not None:
        rest_s = found._turn()  # noqa: SLF001 - its own thread
        del found
        if rest_s is None:
            return
        wake.wait(rest_s)


def _after_fork() -> None:
    for client in list(_CLIENTS):
        client._after_fork()  # noqa: SLF001 - a client is its module's


os.register_at_fork(after_in_child=_after_fork)
