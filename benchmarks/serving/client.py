"""An asyncio client for the fault scenarios: closed loop and open loop, every answer judged, every failure kept.

The open loop measures from the scheduled instant: a server that stalls is not flattered by a client that waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, cast

import httptools
import numpy as np

RIGHTLY = "refused, rightly"
RETRY_S = 0.02
"""Between two attempts on a port that refuses."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """A request, and the judge of its answer: "" for a right one, else what is wrong."""

    data: bytes
    judge: Callable[[Answer], str]
    refusals: frozenset[int] = frozenset()
    """Statuses that are no failure, because something else made them right (a model that is unloaded just now)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One request's fate. `outcome` is `ok`, a status, the judge's words, or the name of an exception."""

    due_s: float
    """When it was sent, or should have been (open loop); of `time.monotonic`."""
    done_s: float
    outcome: str

    @property
    def latency_s(self) -> float:
        return self.done_s - self.due_s


class Sink(Protocol):
    """Takes samples; a list does."""

    def append(self, sample: Sample, /) -> None: ...


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection with one request in flight."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.parser = httptools.HttpResponseParser(self)
        self.waiting: asyncio.Future[Answer] | None = None
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect to this machine."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    async def send(self, data: bytes, limit_s: float) -> Answer:
        """Send a request and wait for its answer; a connection that failed once is closed.

        Raises:
            OSError: the connection broke.
            TimeoutError: no answer within the limit.
        """
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("closed between requests")
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        try:
            async with asyncio.timeout(limit_s):
                return await self.waiting
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection up."""
        if self.transport is not None:
            self.transport.abort()

    @property
    def is_open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(exc or ConnectionResetError("closed without an answer"))

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self.waiting is not None and not self.waiting.done():
                self.waiting.set_exception(ConnectionError(f"no HTTP: {error}"))
            self.close()

    def on_message_begin(self) -> None:
        self.headers, self.parts = {}, []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        if self.waiting is not None and not self.waiting.done():
            body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
            self.waiting.set_result(Answer(self.parser.get_status_code(), self.headers, body))
        if not self.parser.should_keep_alive():  # a draining server says so; the next request there would be lost
            self.close()


def judged(call: Call, answer: Answer) -> str:
    """The outcome of an answer."""
    if answer.status == 200:
        return call.judge(answer) or "ok"
    return RIGHTLY if answer.status in call.refusals else str(answer.status)


async def attempt(connection: Connection, call: Call, due_s: float, limit_s: float) -> Sample:
    """One request on a connection."""
    try:
        outcome = judged(call, await connection.send(call.data, limit_s))
    except (OSError, TimeoutError) as error:
        outcome = type(error).__name__
    return Sample(due_s, time.monotonic(), outcome)


async def closed_loop(
    port: int,
    call: Callable[[], Call],
    connections: int,
    stop: asyncio.Event,
    samples: Sink,
    limit_s: float = 10,
) -> None:
    """Clients that wait for each answer, until `stop`; they reconnect where a connection breaks."""

    async def client() -> None:
        connection: Connection | None = None
        while not stop.is_set():
            began = time.monotonic()
            try:
                if connection is None or not connection.is_open:
                    connection = await Connection.open(port)
            except OSError as error:
                samples.append(Sample(began, time.monotonic(), type(error).__name__))
                await asyncio.sleep(RETRY_S)
                continue
            sample = await attempt(connection, call(), began, limit_s)
            samples.append(sample)
            if sample.outcome not in {"ok", RIGHTLY}:
                await asyncio.sleep(RETRY_S)
        if connection is not None:
            connection.close()

    await asyncio.gather(*(client() for _ in range(connections)))


async def open_loop(
    port: int,
    call: Callable[[], Call],
    per_s: float,
    seconds: float,
    samples: Sink,
    limit_s: float = 10,
    seed: int = 11,
) -> None:
    """Requests at Poisson instants, whatever the server does; each takes an idle connection or a new one."""
    chance = np.random.default_rng(seed)
    expected = per_s * seconds
    instants = np.cumsum(chance.exponential(1 / per_s, int(expected + 6 * expected**0.5) + 16))
    idle: list[Connection] = []

    async def one(due_s: float) -> None:
        try:
            while idle and not idle[-1].is_open:
                idle.pop()
            connection = idle.pop() if idle else await Connection.open(port)
        except OSError as error:
            samples.append(Sample(due_s, time.monotonic(), type(error).__name__))
            return
        left = max(due_s + limit_s - time.monotonic(), 0.001)
        samples.append(await attempt(connection, call(), due_s, left))
        if connection.is_open:
            idle.append(connection)

    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for instant in instants[instants < seconds].tolist():
            wait = began + instant - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.create_task(one(began + instant))
    for connection in idle:
        connection.close()


def outcomes(samples: Iterable[Sample]) -> dict[str, int]:
    """How many of each fate, most frequent first."""
    return dict(Counter(sample.outcome for sample in samples).most_common())


def percentile_ms(samples: Iterable[Sample], percent: float) -> float | None:
    """Of the right answers, in milliseconds; None where there is none."""
    latencies = [sample.latency_s for sample in samples if sample.outcome == "ok"]
    return round(float(np.percentile(latencies, percent)) * 1000, 2) if latencies else None


def per_second(samples: list[Sample]) -> float:
    """Right answers a second, from the first request to the last answer."""
    good = [sample for sample in samples if sample.outcome == "ok"]
    if len(good) < 2:
        return 0.0
    return len(good) / (max(s.done_s for s in good) - min(s.due_s for s in good))
