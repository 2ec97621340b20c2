"""Inference over HTTP: the hot path from a connection to an engine and back.

A connection answers one request at a time, so it has one `Exchange`, used again and again.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import zlib
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from npuops.clock import Clock
from npuops.errors import DeadlineError, NotReadyError, NpuopsError
from npuops.events import Observer
from npuops.runtime.job import NO_DEADLINE, Bytes, Completion, Job
from npuops.server.access import Access, take_share
from npuops.server.http_connection import Connection
from npuops.server.http_known import Known
from npuops.server.http_response import BINARY, JSON, OK_JSON, response, response_head
from npuops.server.infer_json import JsonReader
from npuops.server.infer_plan import InferPlan
from npuops.server.infer_response import ID_OPENING, answer, binary_parts
from npuops.server.infer_response import response_head as answer_head
from npuops.server.plan_cache import split_id
from npuops.server.repository import Repository
from npuops.server.served_version import ServedVersion
from npuops.server.shared_memory import Held, Regions

_log: Final = logging.getLogger("npuops.server")
JSON_LENGTH: Final = "Inference-Header-Content-Length"
COMPRESS_HERE_BYTES: Final = 16 * 1024
"""A longer answer is compressed by another thread."""


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
        observe: Observer,
    ) -> None:
        """`regions`: None where shared memory with clients is off; `observe` is told of requests beyond a quota."""
        self.repository, self.clock, self.loop, self.regions = repository, clock, loop, regions
        self.observe = observe
        self.serving = repository.serving
        self.reader = JsonReader()
        self.read = None if regions is None else regions.read
        self._tasks: set[asyncio.Task[None]] = set()

    def later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """What cannot be done at once."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def begin(self, connection: Connection, known: Known, body: Bytes) -> None:
        """A request. The connection's `reply` is called once."""
        exchange = connection.exchange
        if exchange is None:
            exchange = connection.exchange = Exchange(self, connection)
        exchange.begin(known, body)


class Exchange:
    """The request that a connection is answering."""

    __slots__ = (
        "_body",
        "_connection",
        "_held",
        "_infer",
        "_job",
        "_known",
        "_plan",
        "_receive",
        "_request_id",
        "_served",
        "_waking",
    )

    def __init__(self, infer: HttpInfer, connection: Connection) -> None:
        self._infer, self._connection = infer, connection
        self._receive = self._answer
        self._request_id = b""
        self._held: Held | None = None
        self._job: Job | None = None
        self._waking: asyncio.Task[None] | None = None
        self._body: Bytes = b""
        self._known: Known
        self._plan: InferPlan
        self._served: ServedVersion

    def begin(self, known: Known, body: Bytes) -> None:
        """Understand the request and hand it over."""
        target: InferTarget = known.context
        self._known = known
        served = self._infer.serving.get((target.model, target.version))
        if served is not None:
            self._submit(served, known, body, self._infer.clock.now_us())
            return
        # The model is not in memory, or there is none: the request waits until that is known.
        self._waking = self._infer.later(self._begin_cold(known, body))
        self._connection.on_lost = self._lost

    async def _begin_cold(self, known: Known, body: Bytes) -> None:
        """Wait for the model to load, and hand the request over."""
        target: InferTarget = known.context
        now_us = self._infer.clock.now_us()
        connection = self._connection
        try:
            async with asyncio.timeout(target.timeout_us / 1e6 if target.timeout_us else None):
                served = await self._infer.repository.wake(target.model, target.version)
            self._waking = None
            self._submit(served, known, body, now_us)
        except NpuopsError as error:
            connection.fail(error, keep_alive=known.head.keep_alive)
        except TimeoutError:
            late = DeadlineError("the deadline passed while the model was loaded", advice="allow more time")
            connection.fail(late, keep_alive=known.head.keep_alive)
        except Exception as error:  # noqa: BLE001 - a defect of ours: logged, and the client gets no details
            _log.exception("waking %s failed", target.model)
            connection.fail(error, keep_alive=known.head.keep_alive)
        finally:
            self._waking = None

    def _submit(self, served: ServedVersion, known: Known, body: Bytes, now_us: int) -> None:
        target: InferTarget = known.context
        access = target.access
        self._served, self._body = served, body
        try:
            plan, parts = self._understand(served, known.head.json_bytes, body)
            if plan.uses_regions and self._infer.regions is not None:
                self._held = self._infer.regions.hold(plan)
            if access.share is not None:
                take_share(access.share, access.tenant, (served.name, served.version), now_us, self._infer.observe)
        except NpuopsError as error:
            self._held = None
            self._connection.fail(error, keep_alive=known.head.keep_alive)
            return
        self._plan = plan
        timeout_us = plan.timeout_us
        if target.timeout_us:
            timeout_us = min(timeout_us, target.timeout_us) if timeout_us else target.timeout_us
        job = self._job = Job(
            plan.form,
            parts,
            self._receive,
            now_us,
            plan,
            access.tenant,
            access.priority_of(plan.priority) if plan.priority else access.priority,
            served.deadline_us(now_us, timeout_us) if timeout_us or served.hurries else NO_DEADLINE,
            plan.fallback,
        )
        self._connection.on_lost = self._lost
        served.engine.submit(job)

    def _lost(self) -> None:
        """The client went away."""
        job, self._job, self._held = self._job, None, None
        if self._waking is not None:
            self._waking.cancel()
        if job is not None:
            self._served.engine.cancel(job)
            self._give_back()

    def _give_back(self) -> None:
        share = self._known.context.access.share
        if share is not None:
            share.give_back()

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
            found = plans.by_header.get(header) or plans.of_header(header)
            self._request_id = self._request_id or found.id
            if found.has_json:
                return self._read_json(served, view[:json_bytes], view[json_bytes:])
        if found.is_binary:
            return found, found.parts(view[json_bytes:])  # type: ignore[return-value]  # a list of views
        return found, found.gather(view[json_bytes:], read=self._infer.read)

    def _read_json(self, served: ServedVersion, text: memoryview, rest: memoryview) -> tuple[InferPlan, list[Bytes]]:
        plan, data, self._request_id = self._infer.reader.read(bytes(text), served.plans)
        return plan, plan.gather(rest, data, self._infer.read)

    def _answer(self, job: Job, result: Completion | NpuopsError) -> None:
        self._job = None  # it holds the body
        known, connection, body = self._known, self._connection, self._body
        self._body = b""
        target: InferTarget = known.context
        share = target.access.share
        if share is not None:
            share.give_back()
        keep_alive = known.head.keep_alive and not connection.ending
        if type(result) is not Completion:
            if type(result) is not NotReadyError or not self._moves_on(known, body, job.arrived_us):
                connection.fail(result, keep_alive=keep_alive)  # type: ignore[arg-type]
            return
        plan = self._plan
        try:
            if plan.is_fixed and not plan.uses_regions and not target.compress:
                identity = self._request_id
                key = (result.shapes, result.device, result.fell_back, keep_alive, len(identity))
                around = plan.cache.get(key)
                if around is None:
                    around = self._around(plan, result, keep_alive=keep_alive)
                    plan.remember(key, around)
                before, after = around
                connection.reply(
                    b"".join((before, identity, after, *binary_parts(plan, result))), keep_alive=keep_alive
                )
                return
            self._answer_alone(plan, result, target.compress, keep_alive=keep_alive)
        except NpuopsError as error:
            connection.fail(error, keep_alive=keep_alive)
        except Exception as error:  # noqa: BLE001 - a defect of ours: logged, and the client gets no details
            _log.exception("answering %s failed", known.head.path)
            connection.fail(error, keep_alive=keep_alive)

    def _moves_on(self, known: Known, body: Bytes, arrived_us: int) -> bool:
        """A version that was replaced meanwhile, and has no device any more, hands its requests to its successor."""
        successor = self._infer.serving.get((known.context.model, known.context.version))
        if successor is None or successor is self._served:
            return False
        self._submit(successor, known, body, arrived_us)
        return True

    def _around(self, plan: InferPlan, completion: Completion, *, keep_alive: bool) -> tuple[bytes, bytes]:
        """HTTP's head and the JSON, before and after the id: of all answers with these shapes and an id as long."""
        identity = self._request_id
        text = answer_head(plan, self._served.name, self._served.version, completion, identity)
        assert text is not None  # noqa: S101 - the plan said that it is fixed
        size = len(text) + sum(map(len, binary_parts(plan, completion)))
        length = {JSON_LENGTH: str(len(text))} if plan.answers_binary else {}
        kind = BINARY if plan.answers_binary else JSON
        head = response_head(200, size, content_type=kind, headers=length, keep_alive=keep_alive)
        return (head + ID_OPENING, text[len(ID_OPENING) + len(identity) :]) if identity else (head + text, b"")

    def _answer_alone(self, plan: InferPlan, completion: Completion, encoding: str, *, keep_alive: bool) -> None:
        """An answer that has something of its own: an id, data in JSON, a place in shared memory, compression.

        Raises:
            NpuopsError: a value that JSON cannot hold, or a region that is gone.
        """
        text, parts = answer(plan, self._served.name, self._served.version, completion, self._request_id)
        held, self._held = self._held, None
        if held is not None:
            held.write(completion)
        headers = {JSON_LENGTH: str(len(text))} if plan.answers_binary else {}
        kind = BINARY if plan.answers_binary else JSON
        body = b"".join((text, *parts))
        connection = self._connection
        if len(body) > COMPRESS_HERE_BYTES and encoding:
            connection.on_lost = None
            self._infer.later(self._compress_apart(body, encoding, kind, headers))
            return
        if encoding:
            body = _compressed(body, encoding)
            headers["Content-Encoding"] = encoding
        elif keep_alive and not headers:
            connection.reply(b"".join((OK_JSON % len(body), body)), keep_alive=True)
            return
        connection.reply(
            response(200, body, content_type=kind, headers=headers, keep_alive=keep_alive), keep_alive=keep_alive
        )

    async def _compress_apart(self, body: bytes, encoding: str, kind: str, headers: dict[str, str]) -> None:
        headers["Content-Encoding"] = encoding
        body = await asyncio.to_thread(_compressed, body, encoding)
        keep_alive = self._known.head.keep_alive and not self._connection.ending
        self._connection.reply(
            response(200, body, content_type=kind, headers=headers, keep_alive=keep_alive), keep_alive=keep_alive
        )


def _compressed(body: bytes, encoding: str) -> bytes:
    return gzip.compress(body, 1, mtime=0) if encoding == "gzip" else zlib.compress(body, 1)
