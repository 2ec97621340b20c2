"""Inference over gRPC: the way from a message to an engine and back, one by one (`ModelInfer`) and in streams."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from npuops.clock import Clock
from npuops.errors import DataError, DeadlineError, NotReadyError, NpuopsError
from npuops.events import Observer
from npuops.runtime.job import NO_DEADLINE, Bytes, Completion, Job
from npuops.server.access import Access, Gate, access_of, take_share, timeout_us_of
from npuops.server.grpc_call import GrpcCall, Hold
from npuops.server.grpc_decode import Asked, Skeletons
from npuops.server.grpc_encode import response_parts, stream_error, stream_response
from npuops.server.grpc_head import GrpcHead
from npuops.server.infer_plan import InferPlan
from npuops.server.served_version import ServedVersion
from npuops.server.shared_memory import Held, Regions
from npuops.server.status import GrpcStatus, words_of

_log: Final = logging.getLogger("npuops.server")
_MOST_WAITING: Final = 256
"""Requests of one stream that are not answered yet; above, its messages wait as they came."""


class Request:
    """One inference that is being answered.

    Attributes:
        identity: its `id`; empty while that is not known.
        asked: what is needed to ask another version: the head, the inputs, the client's rights and its time limit.
        tell: gets the request, and its completion or error, exactly once unless it was cancelled.
        owner: the call, or the stream's own record.
    """

    __slots__ = ("asked", "call", "held", "identity", "job", "owner", "plan", "served", "share", "tell", "waking")

    def __init__(self, call: GrpcCall, tell: Callable[[Request, Completion | NpuopsError], None]) -> None:
        self.call = call
        self.tell = tell
        self.owner: Any = None
        self.held: Held | None = None
        self.share: Any = None
        self.job: Job | None = None
        self.identity = ""
        self.waking: asyncio.Task[None] | None = None
        self.asked: tuple[Asked, Sequence[Bytes], Access, int]
        self.plan: InferPlan
        self.served: ServedVersion

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
        serving: Mapping[tuple[str, str], ServedVersion],
        wake: Callable[[str, str], Awaitable[ServedVersion]],
        clock: Clock,
        gate: Gate,
        regions: Regions | None,
        observe: Observer,
    ) -> None:
        """Args as the attributes of the same names in `Repository`.

        Args:
            serving: by name and version, of what answers now.
            wake: loads what does not.
            clock: the engines'.
            gate: knows the tenants.
            regions: None where shared memory is off.
            observe: is told of requests beyond a quota.
        """
        self._serving, self._wake = serving, wake
        self._clock, self._gate, self._regions = clock, gate, regions
        self._observe = observe
        self._is_draining = False
        self._skeletons = Skeletons()
        self._streams: set[InferStream] = set()
        self._receive = self._received

    def access(self, head: GrpcHead) -> tuple[Access, int]:
        """The caller's rights, and its timeout in microseconds; 0 where it waits for ever.

        Raises:
            NpuopsError: it has none.
        """
        known: tuple[Access, int] | None = head.memo
        if known is None:
            timeouts = [time for time in (head.timeout_us, timeout_us_of(head.metadata)) if time]
            known = head.memo = (access_of(self._gate, head.metadata), min(timeouts, default=0))
        return known

    def infer(self, call: GrpcCall, message: bytes) -> None:
        """`ModelInfer`.

        Raises:
            NpuopsError: the request cannot be taken.
        """
        request = Request(call, _reply)
        call.on_cancel = request.cancel
        self.begin(request, message)

    def stream_open(self, call: GrpcCall) -> None:
        """`ModelStreamInfer` begins."""
        stream = call.context = InferStream(self, call, self._streams)
        if self._is_draining:
            stream.drain()

    def stream_message(self, call: GrpcCall, message: bytes) -> None:
        """One message of `ModelStreamInfer`."""
        call.context.take(message)

    def stream_end(self, call: GrpcCall) -> None:
        """The client of `ModelStreamInfer` sends no more."""
        call.context.end()

    def drain(self) -> None:
        """The server stops: streams end as soon as what they were asked is answered."""
        self._is_draining = True
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
            self._run(request, served, asked, pieces, access, timeout_us, self._clock.now_us())
            return
        waking = self._woken(request, asked, pieces, access, timeout_us)
        request.waking = asyncio.get_running_loop().create_task(waking)

    async def _woken(
        self, request: Request, asked: Asked, pieces: Sequence[Bytes], access: Access, timeout_us: int
    ) -> None:
        """The model is cold, or unknown."""
        began_us = self._clock.now_us()
        try:
            async with asyncio.timeout(timeout_us / 1e6 if timeout_us else None):
                served = await self._wake(asked.model, asked.version)
            request.waking = None
            if timeout_us:
                timeout_us = max(1, timeout_us - (self._clock.now_us() - began_us))
            self._run(request, served, asked, pieces, access, timeout_us, self._clock.now_us())
        except NpuopsError as error:
            request.tell(request, error)
        except TimeoutError:
            late = DeadlineError("the deadline passed while the model was loaded", advice="allow more time")
            request.tell(request, late)
        except Exception as error:  # noqa: BLE001 -- a defect must not leave the client without an answer
            _log.exception("waking %s failed", asked.model)
            request.tell(request, NpuopsError(words_of(error)))

    def _run(
        self,
        request: Request,
        served: ServedVersion,
        asked: Asked,
        pieces: Sequence[Bytes],
        access: Access,
        timeout_us: int,
        now_us: int,
    ) -> None:
        request.asked = (asked, pieces, access, timeout_us)
        memo = asked.memo
        if memo is not None and memo[0] is served:
            plan = memo[1]
        else:
            plan = served.plans.of_key(asked.key, asked.head)
            asked.memo = (served, plan)
        parts = plan.arrange(pieces, None if self._regions is None else self._regions.read)
        if plan.uses_regions:
            request.held = self._hold(plan)
        if access.share is not None:
            take_share(access.share, access.tenant, (served.name, served.version), now_us, self._observe)
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
            access.priority_of(plan.priority) if plan.priority else access.priority,
            served.deadline_us(now_us, timeout_us) if timeout_us or served.hurries else NO_DEADLINE,
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
        if type(result) is not NotReadyError or not self._moves_on(request, job.arrived_us):
            request.tell(request, result)

    def _moves_on(self, request: Request, arrived_us: int) -> bool:
        """A version that was replaced meanwhile, and has no device any more, hands its requests to its successor."""
        asked, pieces, access, timeout_us = request.asked
        successor = self._serving.get((asked.model, asked.version))
        if successor is None or successor is request.served:
            return False
        try:
            self._run(request, successor, asked, pieces, access, timeout_us, arrived_us)
        except NpuopsError as error:
            request.tell(request, error)
        return True


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
        if len(self._waiting) >= _MOST_WAITING:
            self._call.hold(Hold.CROWDED)
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
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is this request's alone
                place[1] = stream_error(words_of(_told_apart(error)), request.identity)
        else:
            place[1] = stream_error(words_of(result), request.identity)  # type: ignore[arg-type]
        self._flush()

    def _flush(self) -> None:
        while self._waiting and self._waiting[0][1] is not None:
            self._call.send(self._waiting.popleft()[1])
        if len(self._waiting) <= _MOST_WAITING // 2:
            self._call.release(Hold.CROWDED)
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
            parts = request.parts(result)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is this request's alone
            call.fail_with(_told_apart(error))
            return
        call.reply(*parts)
    else:
        call.fail_with(result)  # type: ignore[arg-type]  # mypy does not narrow by `type() is`


def _told_apart(error: Exception) -> NpuopsError:
    """An error of our tree as it is; a defect goes into the log, and the client gets no details."""
    if isinstance(error, NpuopsError):
        return error
    _log.error("answering failed", exc_info=error)
    return NpuopsError(words_of(error))
