"""Inference over HTTP: the hot path from a connection to an engine and back.

A connection answers one request at a time, so it has one `Exchange`, used again and again.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from npuops.clock import Clock
from npuops.errors import NpuopsError
from npuops.runtime.job import NO_DEADLINE, Bytes, Completion, Job
from npuops.server.access import Access
from npuops.server.http_connection import Connection
from npuops.server.http_known import Known
from npuops.server.http_response import BINARY, JSON, response, response_head
from npuops.server.infer_json import JsonReader
from npuops.server.infer_plan import InferPlan
from npuops.server.infer_request import RegionRef
from npuops.server.infer_response import answer, binary_parts
from npuops.server.infer_response import response_head as answer_head
from npuops.server.plan_cache import split_id
from npuops.server.repository import Repository
from npuops.server.served_version import ServedVersion
from npuops.server.shared_memory import Held, Regions

JSON_LENGTH: Final = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True)
class InferTarget:
    """What the head of an inference request says.

    Attributes:
        version: "" for the default one.
        timeout_us: by header; 0 where there is none.
        compress: the encoding of the answer that the client asks for: `gzip`, `deflate` or "".
    """

    model: str
    version: str
    access: Access
    timeout_us: int
    compress: str


class HttpInfer:
    """Takes inference requests of all connections."""

    def __init__(
        self,
        repository: Repository[ServedVersion],
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        regions: Regions | None,
    ) -> None:
        """`regions`: None where shared memory with clients is off."""
        self.repository, self.clock, self.loop, self.regions = repository, clock, loop, regions
        self.serving = repository.serving
        self.reader = JsonReader()
        self._waking: set[asyncio.Task[None]] = set()

    def wake(self, exchange: Exchange, known: Known, body: Bytes) -> None:
        """The model is not in memory, or there is none: the request waits until that is known."""
        task = self.loop.create_task(exchange.begin_cold(known, body))
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    def begin(self, connection: Connection, known: Known, body: Bytes) -> None:
        """A request. The connection's `reply` is called once."""
        exchange = connection.exchange
        if exchange is None:
            exchange = connection.exchange = Exchange(self, connection)
        exchange.begin(known, body)


class Exchange:
    """The request that a connection is answering."""

    __slots__ = (
        "_connection",
        "_held",
        "_infer",
        "_job",
        "_keep_alive",
        "_plan",
        "_receive",
        "_request_id",
        "_served",
        "_target",
    )

    def __init__(self, infer: HttpInfer, connection: Connection) -> None:
        self._infer, self._connection = infer, connection
        self._receive = self._answer
        self._keep_alive = True
        self._request_id = b""
        self._held: Held | None = None
        self._plan: InferPlan
        self._served: ServedVersion
        self._target: InferTarget
        self._job: Job

    def begin(self, known: Known, body: Bytes) -> None:
        """Understand the request and hand it over."""
        target: InferTarget = known.context
        self._target, self._keep_alive = target, known.head.keep_alive
        served = self._infer.serving.get((target.model, target.version))
        if served is None:
            self._infer.wake(self, known, body)
        else:
            self._submit(served, known, body, self._infer.clock.now_us())

    async def begin_cold(self, known: Known, body: Bytes) -> None:
        """Wait for the model to load, and hand the request over."""
        target = self._target
        now_us = self._infer.clock.now_us()
        try:
            served = await self._infer.repository.wake(target.model, target.version)
        except NpuopsError as error:
            self._connection.fail(error, keep_alive=self._keep_alive)
            return
        if self._connection.is_open:
            self._submit(served, known, body, now_us)

    def _submit(self, served: ServedVersion, known: Known, body: Bytes, now_us: int) -> None:
        target, head = self._target, known.head
        self._served = served
        access = target.access
        try:
            plan, parts = self._understand(served, head.json_bytes, body)
            self._held = None
            if plan.uses_regions and self._infer.regions is not None:
                self._held = self._infer.regions.hold(plan)
            if access.share is not None:
                access.share.take(now_us)
        except NpuopsError as error:
            self._connection.fail(error, keep_alive=self._keep_alive)
            return
        self._plan = plan
        timeout_us = plan.timeout_us or target.timeout_us
        job = self._job = Job(
            plan.form,
            parts,
            self._receive,
            now_us,
            plan,
            access.tenant,
            max(access.priority, plan.priority),
            now_us + timeout_us if timeout_us else NO_DEADLINE,
            plan.fallback,
        )
        self._connection.on_lost = self.lost
        served.engine.submit(job)

    def lost(self) -> None:
        """The client went away."""
        self._served.engine.cancel(self._job)
        if self._target.access.share is not None:
            self._target.access.share.give_back()

    def _understand(self, served: ServedVersion, json_bytes: int | None, body: Bytes) -> tuple[InferPlan, list[Bytes]]:
        view = memoryview(body)
        plans = served.plans
        self._request_id = b""
        if json_bytes is None:
            return self._read_json(served, view, view[len(view) :])
        if json_bytes == 0:
            plan = plans.of_raw(len(view))
            return plan, plan.gather(view)
        header = bytes(view[:json_bytes])
        found = plans.by_header.get(header)
        if found is None:
            header, self._request_id = split_id(header)
            found = plans.of_header(header)
            self._request_id = self._request_id or found.id
            if found.has_json:
                return self._read_json(served, view[:json_bytes], view[json_bytes:])
        if found.is_binary:
            return found, found.parts(view[json_bytes:])  # type: ignore[return-value]  # a list of views
        return found, found.gather(view[json_bytes:], read=self._read_region())

    def _read_json(self, served: ServedVersion, text: memoryview, rest: memoryview) -> tuple[InferPlan, list[Bytes]]:
        plan, data, self._request_id = self._infer.reader.read(bytes(text), served.plans)
        return plan, plan.gather(rest, data, self._read_region())

    def _answer(self, job: Job, result: Completion | NpuopsError) -> None:
        del job
        share = self._target.access.share
        if share is not None:
            share.give_back()
        if type(result) is not Completion:
            self._connection.fail(result, keep_alive=self._keep_alive)  # type: ignore[arg-type]
            return
        plan = self._plan
        if plan.is_fixed and not self._request_id and not plan.uses_regions and not self._target.compress:
            key = (result.shapes, result.device, result.fell_back, self._keep_alive)
            head = plan.cache.get(key)
            if head is None:
                head = self._fixed_head(plan, result)
                plan.remember(key, head)
            parts = binary_parts(plan, result)
            self._connection.reply(b"".join((head, *parts)), keep_alive=self._keep_alive)
            return
        try:
            data = self._whole_answer(plan, result)
        except NpuopsError as error:
            self._connection.fail(error, keep_alive=self._keep_alive)
            return
        self._connection.reply(data, keep_alive=self._keep_alive)

    def _fixed_head(self, plan: InferPlan, completion: Completion) -> bytes:
        """HTTP's head and the JSON, which are the same for every answer of these shapes."""
        text = answer_head(plan, self._served.name, self._served.version, completion)
        assert text is not None  # noqa: S101 - the plan said that it is fixed
        return self._http_head(len(text), len(text) + sum(map(len, binary_parts(plan, completion)))) + text

    def _whole_answer(self, plan: InferPlan, completion: Completion) -> bytes:
        """An answer that has something of its own: an id, data in JSON, a place in shared memory, compression.

        Raises:
            NpuopsError: a value that JSON cannot hold, or a region that is gone.
        """
        name, version = self._served.name, self._served.version
        text, parts = answer(plan, name, version, completion, self._request_id)
        if self._held is not None:
            self._held.write(completion)
        if plan.answers_binary:
            return self._packed(b"".join((text, *parts)), BINARY, {JSON_LENGTH: str(len(text))})
        return self._packed(text, JSON, {})

    def _packed(self, body: bytes, content_type: str, headers: dict[str, str]) -> bytes:
        encoding = self._target.compress
        if encoding:
            body = gzip.compress(body, 1, mtime=0) if encoding == "gzip" else zlib.compress(body, 1)
            headers["Content-Encoding"] = encoding
        return response(200, body, content_type=content_type, headers=headers, keep_alive=self._keep_alive)

    def _http_head(self, json_bytes: int, body_bytes: int) -> bytes:
        return response_head(
            200,
            body_bytes,
            content_type=BINARY,
            headers={JSON_LENGTH: str(json_bytes)},
            keep_alive=self._keep_alive,
        )

    def _read_region(self) -> Callable[[RegionRef], Bytes] | None:
        return None if self._infer.regions is None else self._infer.regions.read
