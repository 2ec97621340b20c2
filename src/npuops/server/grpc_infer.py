"""Inference over gRPC: the way from a message to an engine and back, one by one (`ModelInfer`) and in streams."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from npuops.clock import Clock
from npuops.errors import DataError, NpuopsError
from npuops.runtime.job import NO_DEADLINE, Bytes, Completion, Job
from npuops.server.access import Access, Gate, access_of, timeout_us_of
from npuops.server.grpc_call import GrpcCall
from npuops.server.grpc_decode import Asked, Skeletons
from npuops.server.grpc_encode import response_parts, stream_error, stream_response
from npuops.server.grpc_head import GrpcHead
from npuops.server.infer_plan import InferPlan
from npuops.server.plan_cache import PlanCache
from npuops.server.shared_memory import Held, Regions
from npuops.server.status import GrpcStatus, words_of

_log: Final = logging.getLogger("npuops.server")


class Engine(Protocol):
    """What answers one version of one model."""

    def submit(self, job: Job) -> None:
        """Take a request; its receiver is called exactly once, unless it is cancelled."""
        ...

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more."""
        ...


class Served(Protocol):
    """One version of one model, while it answers."""

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    @property
    def version(self) -> str:
        """Of the model."""
        ...

    @property
    def engine(self) -> Engine:
        """Where requests go."""
        ...

    @property
    def plans(self) -> PlanCache:
        """Of its requests."""
        ...


class Request:
    """One inference that is being answered.

    Attributes:
        identity: its `id`; empty while that is not known.
        tell: gets the request, and its completion or error, exactly once unless it was cancelled.
        owner: the call, or the stream's own record.
    """

    __slots__ = ("call", "held", "identity", "job", "owner", "plan", "served", "share", "tell", "waking")

    def __init__(self, call: GrpcCall, tell: Callable[[Request, Completion | NpuopsError], None]) -> None:
        self.call = call
        self.tell = tell
        self.owner: Any = None
        self.held: Held | None = None
        self.share: Any = None
        self.job: Job | None = None
        self.identity = ""
        self.waking: asyncio.Task[None] | None = None
        self.plan: InferPlan
        self.served: Served

    def cancel(self) -> None:
        """Nobody waits for it."""
        if self.waking is not None:
            self.waking.cancel()
        if self.job is not None:
            self.served.engine.cancel(self.job)
            self.job = None
            if self.share is not None:
                self.share.give_back()

    def parts(self, completion: Completion) -> list[Any]:
        """The answer's message, in pieces.

        Raises:
            NpuopsError: an output cannot be what was asked for.
        """
        if self.held is not None:
            self.held.write(completion)
        served = self.served
        return response_parts(self.plan, served.name, served.version, completion, self.identity)


class GrpcInfer:
    """Takes inference messages of all connections."""

    def __init__(
        self,
        serving: Mapping[tuple[str, str], Served],
        wake: Callable[[str, str], Awaitable[Served]],
        clock: Clock,
        gate: Gate,
        regions: Regions | None,
    ) -> None:
        """Args as the attributes of the same names in `Repository`; `regions`: None where shared memory is off."""
        self._serving, self._wake = serving, wake
        self._clock, self._gate, self._regions = clock, gate, regions
        self._skeletons = Skeletons()
        self._epoch = 0
        self._streams: set[InferStream] = set()
        self._receive = self._received

    def forget(self) -> None:
        """Tenants or keys changed: what is known of callers is asked again."""
        self._epoch += 1

    def access(self, head: GrpcHead) -> tuple[Access, int]:
        """The caller's rights, and its timeout in microseconds; 0 where it waits for ever.

        Raises:
            NpuopsError: it has none.
        """
        known = head.memo
        if known is None or known[0] != self._epoch:
            timeouts = [time for time in (head.timeout_us, timeout_us_of(head.metadata)) if time]
            known = (self._epoch, access_of(self._gate, head.metadata), min(timeouts, default=0))
            head.memo = known
        return known[1], known[2]

    def infer(self, call: GrpcCall, message: bytes) -> None:
        """`ModelInfer`.

        Raises:
            NpuopsError: the request cannot be taken.
        """
        request = Request(call, _reply)
        call.on_cancel = request.cancel
        self.begin(request, message)

    def stream_message(self, call: GrpcCall, message: bytes) -> None:
        """One message of `ModelStreamInfer`."""
        self._stream(call).take(message)

    def stream_end(self, call: GrpcCall) -> None:
        """The client of `ModelStreamInfer` sends no more."""
        self._stream(call).end()

    def drain(self) -> None:
        """The server stops: streams end as soon as what they were asked is answered."""
        for stream in list(self._streams):
            stream.drain()

    def begin(self, request: Request, message: bytes) -> None:
        """Understand a request and hand it over.

        Raises:
            NpuopsError: it cannot be taken; it is not told anything then.
        """
        access, timeout_us = self.access(request.call.head)
        asked, request.identity, pieces = self._skeletons.read(message)
        served = self._serving.get((asked.model, asked.version))
        if served is not None:
            self._run(request, served, asked, pieces, access, timeout_us)
            return
        waking = self._woken(request, asked, pieces, access, timeout_us)
        request.waking = asyncio.get_running_loop().create_task(waking)

    async def _woken(
        self, request: Request, asked: Asked, pieces: Sequence[Bytes], access: Access, timeout_us: int
    ) -> None:
        """The model is cold, or unknown."""
        began_us = self._clock.now_us()
        try:
            served = await self._wake(asked.model, asked.version)
            request.waking = None
            if timeout_us:
                timeout_us = max(1, timeout_us - (self._clock.now_us() - began_us))
            self._run(request, served, asked, pieces, access, timeout_us)
        except NpuopsError as error:
            request.tell(request, error)
        except Exception as error:  # noqa: BLE001 -- a defect must not leave the client without an answer
            _log.exception("waking %s failed", asked.model)
            request.tell(request, NpuopsError(words_of(error)))

    def _run(
        self,
        request: Request,
        served: Served,
        asked: Asked,
        pieces: Sequence[Bytes],
        access: Access,
        timeout_us: int,
    ) -> None:
        memo = asked.memo
        if memo is not None and memo[0] is served:
            plan = memo[1]
        else:
            plan = served.plans.of_key(asked.key, asked.head)
            asked.memo = (served, plan)
        parts = plan.arrange(pieces, None if self._regions is None else self._regions.read)
        if plan.uses_regions:
            request.held = self._hold(plan)
        now_us = self._clock.now_us()
        if access.share is not None:
            access.share.take(now_us)
            request.share = access.share
        if plan.timeout_us:
            timeout_us = min(plan.timeout_us, timeout_us) if timeout_us else plan.timeout_us
        request.plan, request.served = plan, served
        request.job = job = Job(
            plan.form,
            parts,
            self._receive,
            now_us,
            request,
            access.tenant,
            max(access.priority, plan.priority),
            now_us + timeout_us if timeout_us else NO_DEADLINE,
            plan.fallback,
        )
        served.engine.submit(job)

    def _hold(self, plan: InferPlan) -> Held | None:
        if not any(wanted.region is not None for wanted in plan.wanted):
            return None
        if self._regions is None:
            raise DataError("shared memory is switched off on this server", advice="take the outputs in the response")
        return self._regions.hold(plan)

    def _received(self, job: Job, result: Completion | NpuopsError) -> None:
        request: Request = job.context
        request.job = None
        if request.share is not None:
            request.share.give_back()
        request.tell(request, result)

    def _stream(self, call: GrpcCall) -> InferStream:
        stream: InferStream | None = call.context
        if stream is None:
            stream = call.context = InferStream(self, call, self._streams)
        return stream


class InferStream:
    """One call of `ModelStreamInfer`: answers leave in the order of the requests."""

    def __init__(self, infer: GrpcInfer, call: GrpcCall, alive: set[InferStream]) -> None:
        """`alive`: holds all streams that are open."""
        self._infer, self._call, self._alive = infer, call, alive
        self._waiting: deque[list[Any]] = deque()
        self._is_ending = False
        self._is_draining = False
        call.on_cancel = self._cancel
        alive.add(self)

    def take(self, message: bytes) -> None:
        """One request. An error ends it, and not the stream."""
        request = Request(self._call, self._told)
        place = [request, None]
        request.owner = place
        self._waiting.append(place)
        try:
            self._infer.begin(request, message)
        except NpuopsError as error:
            self._told(request, error)

    def end(self) -> None:
        """The client sends no more."""
        self._is_ending = True
        self._flush()

    def drain(self) -> None:
        """The server stops."""
        self._is_draining = True
        self._flush()

    def _told(self, request: Request, result: Completion | NpuopsError) -> None:
        """An answer is there; later ones may have been there before it."""
        place = request.owner
        if type(result) is Completion:
            try:
                place[1] = stream_response(request.parts(result))
            except NpuopsError as error:
                place[1] = stream_error(words_of(error), request.identity)
        else:
            place[1] = stream_error(words_of(result), request.identity)  # type: ignore[arg-type]
        self._flush()

    def _flush(self) -> None:
        while self._waiting and self._waiting[0][1] is not None:
            self._call.send(self._waiting.popleft()[1])
        if self._waiting:
            return
        if self._is_ending:
            self._alive.discard(self)
            self._call.end()
        elif self._is_draining:
            self._alive.discard(self)
            self._call.fail(GrpcStatus.UNAVAILABLE, "the server stops; connect again")

    def _cancel(self) -> None:
        self._alive.discard(self)
        for request, _ in self._waiting:
            request.cancel()
        self._waiting.clear()


def _reply(request: Request, result: Completion | NpuopsError) -> None:
    call = request.call
    call.on_cancel = None
    if type(result) is Completion:
        try:
            call.reply(*request.parts(result))
        except NpuopsError as error:
            call.fail_with(error)
    else:
        call.fail_with(result)  # type: ignore[arg-type]  # mypy does not narrow by `type() is`
