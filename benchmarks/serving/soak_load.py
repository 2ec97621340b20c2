"""The soak's clients: every protocol, every model, every answer judged; and those who leave or read slowly.

One Poisson process of arrivals; each takes one way through the server. One without an answer within `LIMIT_S` is stuck.
The wanted rate was measured at the start: on a machine that became slower since, more and more would be under way. Then
they come more slowly, until the server keeps up again, and beyond `MOST_UNDER_WAY` they are held back; both is told.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import grpc
from client import Answer, Connection
from soak_models import TENANTS, WITH_QUOTA, Repository
from soak_questions import INFER, Question, told_grpc, told_http
from tritonclient.grpc import service_pb2

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
LIMIT_S = 30.0
MOST_UNDER_WAY = 128
BUSY = 24
"""So many under way are more than a server at 70 % has; then the pace falls."""
SLOWER, FASTER, SLOWEST = 0.98, 1.005, 0.1
SHORT_MS = 5
COMES_AND_GOES = "extra"
WEIGHTS = {
    "tiny": 8,
    "pair": 4,
    "swapped": 4,
    "mixed": 3,
    "double": 3,
    "steady": 2,
    "picture": 2,
    COMES_AND_GOES: 1,
    "sleeper": 0.05,
    "wide": 0.5,
}
"""How often a model is asked; the sleeper so rarely that it falls asleep."""
EXAMPLES, ALIKE = 40, 4
"""Failures that are told in full; of those, that say the same."""
NUMBERS = re.compile(r"[0-9.]+")
FINE = ("ok", "shed", "late", "away", "left")
GRPC_STATUS = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
}
NOT_READY = ("not ready", "no device of", "is not running", "stops", "was replaced by", "is ending")
"""In the words of a 503 that is no shedding: the model was away."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it goes out."""

    question: Question
    number: int
    tenant: str
    short: bool
    """It has a deadline that it may miss."""
    least_version: int

    def judge_refusal(self, status: int, words: str) -> str:
        """The word for a refusal: shed, late, away, or what is wrong with it."""
        model = self.question.model
        if status == 504 and self.short:
            return "late"
        if status == 429 and self.tenant == WITH_QUOTA:
            return "shed 429"
        absent = status == 404 or (status == 503 and any(each in words for each in NOT_READY))
        if model == COMES_AND_GOES and absent:
            return "away"
        if status == 503 and not absent:
            return "shed 503"
        return f"{status}: {words}"


@dataclass
class Tally:
    """What became of the requests: counted, because half an hour of them is too much to keep."""

    outcomes: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    """Of failures."""
    examples: list[str] = field(default_factory=list)
    latencies_ms: array[float] = field(default_factory=lambda: array("f"))
    arrivals: int = 0
    held_back: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, way: str, model: str, outcome: str, latency_s: float) -> None:
        """One answer. A failure is kept in words, as long as there are not too many."""
        fine = outcome.startswith(FINE)
        self.outcomes[outcome if fine else "failed"] += 1
        if outcome == "ok":
            self.ways[way] += 1
            self.models[model] += 1
            self.latencies_ms.append(1000 * latency_s)
        if fine:
            return
        kind = f"{way}, {model}: {NUMBERS.sub('#', outcome)[:80]}"
        self.kinds[kind] += 1
        if self.kinds[kind] <= ALIKE and len(self.examples) < EXAMPLES:
            at = time.monotonic() - self.began
            self.examples.append(f"{at:.1f} s, {way}, {model}, after {latency_s:.2f} s: {outcome[:400]}")


class Clients:
    """Everybody who asks."""

    def __init__(self, http_port: int, grpc_port: int, repository: Repository, chance: random.Random) -> None:
        self.http_port = http_port
        self.repository = repository
        self.chance = chance
        self.tally = Tally()
        self.number = 0
        self.under_way = 0
        self.least_version = 1
        """Of `swapped`."""
        self.grpc_port = grpc_port
        self.idle: list[Connection] = []
        self.channels: list[grpc.aio.Channel] = []
        self.ways: dict[str, tuple[float, Callable[[float], Awaitable[None]]]] = {
            "binary": (60, self.binary),
            "json": (25, self.json),
            "grpc": (10, self.grpc),
            "stream": (1, self.stream),
            "leaves": (2, self.leaves),
            "leaves grpc": (0.5, self.leaves_grpc),
            "slow reader": (0.1, self.slow_reader),
            "slow stream": (0.05, self.slow_stream),
        }

    async def rest(self) -> None:
        """Let go of all connections; the next requests make new ones."""
        for connection in self.idle:
            connection.close()
        self.idle.clear()
        for channel in self.channels:
            await channel.close(1)
        self.channels.clear()

    def channel(self) -> grpc.aio.Channel:
        """One of two connections."""
        while len(self.channels) < 2:
            own = [("grpc.use_local_subchannel_pool", 1)]
            self.channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc_port}", options=own))
        return self.chance.choice(self.channels)

    async def capacity(self, seconds: float, clients: int = 16) -> float:
        """Arrivals a second that this many clients get through who wait for each answer."""
        began, arrivals = time.monotonic(), 0

        async def client() -> None:
            nonlocal arrivals
            while time.monotonic() < began + seconds:
                await self.one(time.monotonic())
                arrivals += 1

        await asyncio.gather(*(client() for _ in range(clients)))
        return arrivals / (time.monotonic() - began)

    async def run(self, per_s: float, seconds: float) -> None:
        """Requests at random instants, until the time is over and the last one is answered."""
        began = due = time.monotonic()
        pace = 1.0
        async with asyncio.TaskGroup() as tasks:
            while (due := due + self.chance.expovariate(pace * per_s)) < began + seconds:
                if (wait := due - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                self.tally.arrivals += 1
                pace = min(1.0, pace * FASTER) if self.under_way < BUSY else max(SLOWEST, pace * SLOWER)
                if self.under_way < MOST_UNDER_WAY:
                    tasks.create_task(self.one(due))
                else:
                    self.tally.held_back += 1

    async def one(self, due_s: float) -> None:
        """One request, by any way. Latency counts from the instant at which it was due."""
        way = self.chance.choices(list(self.ways), [weight for weight, _ in self.ways.values()])[0]
        self.under_way += 1
        try:
            async with asyncio.timeout(LIMIT_S):
                await self.ways[way][1](due_s)
        except TimeoutError:
            self.tally.add(way, "?", f"stuck: nothing for {LIMIT_S:g} s", time.monotonic() - due_s)
        except (OSError, EOFError, ValueError, KeyError, TypeError, grpc.RpcError) as error:
            self.tally.add(way, "?", f"{type(error).__name__}: {error}", time.monotonic() - due_s)
        finally:
            self.under_way -= 1

    def ask(self, model: str = "") -> Asked:
        """The next request."""
        self.number += 1
        model = model or self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        return Asked(
            question=self.chance.choice(self.repository.questions[model]),
            number=self.number,
            tenant=self.chance.choice(TENANTS),
            short=self.chance.random() < 0.03,
            least_version=self.least_version if model == "swapped" else 0,
        )

    def end(self, way: str, asked: Asked, outcome: str, due_s: float) -> None:
        self.tally.add(way, asked.question.model, outcome, time.monotonic() - due_s)

    async def binary(self, due_s: float) -> None:
        await self.http("binary", self.ask(), due_s)

    async def json(self, due_s: float) -> None:
        await self.http("json", self.ask(), due_s)

    async def http(self, form: str, asked: Asked, due_s: float) -> None:
        """One request on a connection that is kept."""
        while self.idle and not self.idle[-1].is_open:
            self.idle.pop()
        connection = self.idle.pop() if self.idle else await Connection.open(self.http_port)
        try:
            answer = await connection.send(asked.question.http(form, asked.number, header_lines(asked)), LIMIT_S + 5)
        except OSError as error:
            self.end(form, asked, f"{type(error).__name__}: {error}", due_s)
            return
        self.end(form, asked, judged(asked, answer), due_s)
        if connection.is_open:
            self.idle.append(connection)

    async def grpc(self, due_s: float) -> None:
        """One unary call."""
        asked = self.ask()
        unary = self.channel().unary_unary(INFER)
        metadata = (("x-npuops-tenant", asked.tenant),) if asked.tenant else ()
        try:
            limit_s = SHORT_MS / 1000 if asked.short else None
            body = await unary(asked.question.grpc(asked.number), metadata=metadata, timeout=limit_s)
        except grpc.aio.AioRpcError as error:
            self.end("grpc", asked, refused(asked, error), due_s)
            return
        told = told_grpc(service_pb2.ModelInferResponse.FromString(body))
        self.end("grpc", asked, asked.question.wrong(told, asked.number, asked.least_version) or "ok", due_s)

    async def stream(self, due_s: float) -> None:
        """Some requests over one stream, sent at once; each has its answer, and there is no other."""
        asked = [self.ask() for _ in range(self.chance.randint(1, 12))]
        await self.streamed("stream", asked, due_s, pause_s=0.0)

    async def slow_stream(self, due_s: float) -> None:
        """Wide answers over a stream, which are taken one by one with pauses."""
        await self.streamed("slow stream", [self.ask("wide") for _ in range(12)], due_s, pause_s=0.05)

    async def streamed(self, way: str, asked: list[Asked], due_s: float, pause_s: float) -> None:
        """All of them over one stream. A stream has one tenant and no deadline."""
        waiting = {each.number: Asked(each.question, each.number, "", False, each.least_version) for each in asked}

        async def requests() -> AsyncIterator[bytes]:
            for each in asked:
                yield each.question.grpc(each.number)

        call = self.channel().stream_stream(STREAM)(requests())
        async for body in call:
            answer = service_pb2.ModelStreamInferResponse.FromString(body)
            found = waiting.pop(int(answer.infer_response.id.rpartition("-")[2] or 0), None)
            if found is None:
                self.tally.add(way, "?", f"an answer to no request: {str(answer)[:200]}", time.monotonic() - due_s)
            elif answer.error_message:
                self.end(way, found, streamed_refusal(found, answer.error_message), due_s)
            else:
                told = told_grpc(answer.infer_response)
                self.end(way, found, found.question.wrong(told, found.number, found.least_version) or "ok", due_s)
            await asyncio.sleep(pause_s)
        for lost in waiting.values():
            self.end(way, lost, "the stream ended without its answer", due_s)

    async def leaves(self, due_s: float) -> None:
        """Go away after half a request, or before its answer."""
        asked = self.ask()
        data = asked.question.http(self.chance.choice(("json", "binary")), asked.number)
        _, writer = await asyncio.open_connection("127.0.0.1", self.http_port)
        writer.write(data if self.chance.random() < 0.5 else data[: self.chance.randrange(len(data))])
        await asyncio.sleep(self.chance.random() * 0.01)
        if self.chance.random() < 0.5:
            writer.transport.abort()
        else:
            writer.close()
        self.end("leaves", asked, "left", due_s)

    async def leaves_grpc(self, due_s: float) -> None:
        """Cancel a call or a stream under way."""
        asked = [self.ask() for _ in range(8)]

        async def requests() -> AsyncIterator[bytes]:
            for each in asked:
                yield each.question.grpc(each.number)

        if self.chance.random() < 0.5:
            call = self.channel().stream_stream(STREAM)(requests())
        else:
            call = self.channel().unary_unary(INFER)(asked[0].question.grpc(asked[0].number))
        await asyncio.sleep(self.chance.random() * 0.01)
        call.cancel()
        self.end("leaves grpc", asked[0], "left", due_s)

    async def slow_reader(self, due_s: float) -> None:
        """Three wide answers on one connection, read in small pieces; now and then the reader loses patience."""
        asked = [self.ask("wide") for _ in range(3)]
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            await loop.sock_connect(sock, ("127.0.0.1", self.http_port))
            await loop.sock_sendall(sock, b"".join(each.question.http("binary", each.number) for each in asked))
            got, enough = bytearray(), self.chance.randrange(600_000) if self.chance.random() < 0.3 else 1 << 30
            for each in asked:
                while (answer := taken(got)) is None and len(got) < enough:
                    piece = await loop.sock_recv(sock, 32768)
                    if not piece:
                        self.end("slow reader", each, "closed under a slow reader", due_s)
                        return
                    got += piece
                    await asyncio.sleep(0.004)
                if answer is None:
                    self.end("slow reader", each, "left", due_s)
                    return
                self.end("slow reader", each, judged(Asked(each.question, each.number, "", False, 0), answer), due_s)
                enough -= len(answer.body)


def header_lines(asked: Asked) -> str:
    """Those of the tenant and the deadline."""
    lines = f"X-Npuops-Tenant: {asked.tenant}\r\n" if asked.tenant else ""
    return lines + (f"X-Request-Timeout-Ms: {SHORT_MS}\r\n" if asked.short else "")


def judged(asked: Asked, answer: Answer) -> str:
    """The outcome of an HTTP answer."""
    if answer.status != 200:
        if answer.status in {429, 503} and "retry-after" not in answer.headers:
            return f"{answer.status} without Retry-After: {answer.body[:200]!r}"
        return asked.judge_refusal(answer.status, answer.body.decode(errors="replace"))
    try:
        told = told_http(answer.headers, answer.body)
    except (ValueError, KeyError, TypeError) as error:
        return f"unreadable ({error!r}): {answer.body[:200]!r}"
    return asked.question.wrong(told, asked.number, asked.least_version) or "ok"


def refused(asked: Asked, error: grpc.aio.AioRpcError) -> str:
    """The outcome of a call that failed."""
    status = GRPC_STATUS.get(error.code())
    words = error.details() or ""
    return asked.judge_refusal(status, words) if status else f"{error.code().name}: {words}"


def streamed_refusal(asked: Asked, words: str) -> str:
    """The outcome of an error within a stream, which has no status of its own."""
    if asked.question.model == COMES_AND_GOES and "was unloaded" in words:
        return "away"
    return asked.judge_refusal(503, words)


def taken(got: bytearray) -> Answer | None:
    """The first whole answer of what was received, which is removed; None while it is not whole."""
    head, blank, _ = bytes(got[:8192]).partition(b"\r\n\r\n")
    if not blank:
        return None
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    begin, size = len(head) + 4, int(headers["content-length"])
    if len(got) < begin + size:
        return None
    answer = Answer(int(status.split()[1]), headers, bytes(got[begin : begin + size]))
    del got[: begin + size]
    return answer
