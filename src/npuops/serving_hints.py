"""What a server tells an agent of `npuops hostsched`: that somebody waits for its loop and its workers, and how long.

Read off the engines some 50 times a second while an agent listens. Where none does, a look for its socket once a
second is all; a request pays for nothing but a list's append for the batch that it shares.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from npuops.events import Event
from npuops.hostsched.hint import Kind
from npuops.hostsched.hint_line import HintLine, now_us
from npuops.hostsched.hint_wire import LONGEST_US, Word
from npuops.runtime.facts import BatchRan, RequestShed, ShedReason
from npuops.runtime.job import NO_DEADLINE, Job
from npuops.runtime.replica import Replica
from npuops.runtime.step_pool import StepPool
from npuops.server.served_version import ServedVersion
from npuops.serving_gauges import engine_of

PERIOD_S: Final = 0.02
RETRY_S: Final = 1.0
REFRESH_US: Final = 400_000
"""What did not change is said again after so long: the agent forgets queues after a second."""
WORDS_A_SECOND: Final = 400
"""At most, of all processes together; the agent hangs up on who sends more than 1,000 (hint_socket.py)."""
_LATE: Final = frozenset({ShedReason.DEADLINE, ShedReason.QUEUE_FULL, ShedReason.NOT_READY})
"""Requests that were refused for these reasons came too late for an answer; a quota is no fault of the scheduler's."""
_log: Final = logging.getLogger(__name__)

_Key = tuple[str, str, str]
_LOOP: Final[_Key] = ("", "", "")
"""Of the front end; workers have model, version and device."""


@dataclass(slots=True)
class _Tally:
    served: int = 0
    missed: int = 0


class ServerHints:
    """`run` it on the loop that answers requests, and let it observe."""

    def __init__(
        self,
        running: Callable[[], Collection[ServedVersion]],
        pool: StepPool,
        *,
        path: str | None = None,
        slo_ms: float | None = None,
    ) -> None:
        """Nothing is said yet.

        Args:
            running: what is served now, each version once.
            pool: of processes that prepare pictures.
            path: of the agent's socket; None: as `hint_place.places` says.
            slo_ms: of models whose `[queue]` names no time; None: they have no SLO.
        """
        self._running, self._pool = running, pool
        self._slo_us = None if slo_ms is None else round(slo_ms * 1000)
        self._line = HintLine(path)
        self._listens = False
        self._pending: list[BatchRan | RequestShed] = []
        self._tallies: dict[_Key, _Tally] = defaultdict(_Tally)
        self._said: dict[int, tuple[Word, int]] = {}
        self._meetings = 0

    def observe(self, event: Event) -> None:
        """Keep what says how many were served, while somebody wants to know."""
        if self._listens and isinstance(event, BatchRan | RequestShed):
            self._pending.append(event)

    async def run(self) -> None:
        """Until it is cancelled."""
        tid = threading.get_native_id()
        with suppress(asyncio.CancelledError):
            while True:
                try:
                    rest_s = self._turn(tid)
                except Exception:  # noqa: BLE001 - a defect here must cost the hints, and not the server
                    _log.exception("the hints to the host's scheduler end")
                    break
                await asyncio.sleep(rest_s)
        self._listens = False
        self._pending.clear()
        self._line.close()

    def _turn(self, tid: int) -> float:
        """Say what is new; gives the seconds until the next time."""
        at_us = now_us()
        self._listens = self._line.is_open(at_us)
        if not self._listens:
            self._pending.clear()
            return RETRY_S
        if self._line.meetings != self._meetings:
            self._meetings = self._line.meetings
            self._said.clear()
        words = self._words(tid, at_us)
        self._said = {word.tid: self._said[word.tid] for word in words if word.tid in self._said}
        for word in words:
            self._say(word, at_us)
        return max(PERIOD_S, len(words) / WORDS_A_SECOND)

    def _say(self, word: Word, at_us: int) -> None:
        bare = replace(word, sent_us=0, slack_us=None)
        last, last_us = self._said.get(word.tid, (None, 0))
        if (bare != last or at_us - last_us >= REFRESH_US) and self._line.send(word):
            self._said[word.tid] = (bare, at_us)

    def _words(self, tid: int, at_us: int) -> list[Word]:
        """Of the front end's loop, of every worker, and of the processes that prepare pictures."""
        running = self._running()
        slos = {(each.name, each.version): self._slo_of(each) for each in running}
        self._fold(slos)
        words, keys, due_us, queued = [], {_LOOP}, NO_DEADLINE, 0
        for each in running:
            engine = engine_of(each)
            if engine is None:  # a chain: its models are there by themselves
                continue
            queued += each.in_flight
            for replica in engine.replicas.all:
                key = (engine.model, engine.version, replica.spec.name)
                keys.add(key)
                slo_us = slos[each.name, each.version]
                first_us = _first_due_us(_jobs(replica), slo_us)
                due_us = min(due_us, first_us)
                if replica.ready:
                    words.append(self._word(key, replica.pid, slo_us, first_us, len(_jobs(replica)), at_us))
        shortest_us = min((slo_us for slo_us in slos.values() if slo_us is not None), default=None)
        words.append(replace(self._word(_LOOP, tid, shortest_us, due_us, queued, at_us), whole=False))
        if self._pool.is_started:
            waiting = self._pool.waiting
            words += [
                Word(tid=pid, whole=True, sent_us=at_us, kind=Kind.LATENCY, queued=waiting) for pid in self._pool.pids
            ]
        self._tallies = defaultdict(_Tally, {key: self._tallies[key] for key in keys})
        return words

    def _word(self, key: _Key, tid: int, slo_us: int | None, due_us: int, queued: int, at_us: int) -> Word:
        tally = self._tallies[key]
        return Word(
            tid=tid,
            whole=True,
            sent_us=at_us,
            kind=Kind.LATENCY,
            slo_us=slo_us,
            slack_us=None if due_us >= NO_DEADLINE else due_us - at_us,
            queued=queued,
            served=tally.served,
            missed=tally.missed,
        )

    def _slo_of(self, served: ServedVersion) -> int | None:
        told_ms = served.spec.options.queue.shortest_ms
        slo_us = self._slo_us if told_ms is None else round(told_ms * 1000)
        return None if slo_us is None else min(max(slo_us, 1), LONGEST_US)

    def _fold(self, slos: dict[tuple[str, str], int | None]) -> None:
        pending, self._pending = self._pending, []
        for event in pending:
            if isinstance(event, BatchRan):
                slo_us = slos.get((event.model, event.version))
                late = 0 if slo_us is None else sum(event.answered_us - each > slo_us for each in event.arrived_us)
                for key in (_LOOP, (event.model, event.version, event.device)):
                    self._tallies[key].served += len(event.arrived_us)
                    self._tallies[key].missed += late
            elif event.reason in _LATE:
                self._tallies[_LOOP].served += 1
                self._tallies[_LOOP].missed += 1


def _jobs(replica: Replica) -> list[Job]:
    return [job for run in replica.under_way.values() for job in run.jobs]


def _first_due_us(jobs: Iterable[Job], slo_us: int | None) -> int:
    """The earliest deadline, the request's own or the SLO's; `NO_DEADLINE` where none has any."""
    wait_us = NO_DEADLINE if slo_us is None else slo_us
    return min((min(job.deadline_us, job.arrived_us + wait_us) for job in jobs), default=NO_DEADLINE)
