"""Where requests meet the machine: who asked for what, what the device made of it, and which reply is due.

It knows no socket. `take` a request, `turn` the time on, `take_outbox`: replies may come at once, when the modelled
time has come, or when the host has computed the numbers, whichever is last.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

from npuops.artifacts.keys import SigningKey
from npuops.clock import Clock
from npuops.errors import DeviceError, DeviceLostError, NpuopsError, OptionError, nearest
from npuops.vnpu import wire
from npuops.vnpu.bit_flips import flip_bits
from npuops.vnpu.device_events import ContextLost, DeviceEvent, JobCompleted, JobFailed, LifeChanged
from npuops.vnpu.device_telemetry import Telemetry
from npuops.vnpu.fault_plan import read_plan
from npuops.vnpu.firmware import quote, read_header
from npuops.vnpu.job_answers import completed, lost
from npuops.vnpu.life import Life
from npuops.vnpu.machine import Machine
from npuops.vnpu.numerics import Numerics, SlotNumerics
from npuops.vnpu.numerics_worker import Finished, attempt
from npuops.vnpu.pacing import DeviceTime, Pacing
from npuops.vnpu.segment import Segment, make_segment
from npuops.vnpu.simulation import POWERED
from npuops.vnpu.tenancy import Priority
from npuops.vnpu.tensors import Layout, layout_of

_TIME_LIMIT_US: Final = 10**15
"""Thirty years: nobody moves a device's time beyond, so it stays within the 64 bits of a message in nanoseconds too."""

_PRIORITIES: Final[Mapping[str, Priority]] = MappingProxyType({level.word: level for level in Priority})

Outgoing = tuple[int, wire.Reply, int | None]
"""Client, reply, and a descriptor that goes with it."""


class Worker(Protocol):
    """Computes in the background: `NumericsWorker`."""

    def start(self, key: int, task: Callable[[], Any]) -> None:
        """Begin a task; `finished` names its key later."""
        ...

    def finished(self) -> list[Finished]:
        """What has ended since the last call."""
        ...


@dataclass(slots=True)
class _Held:
    """A loaded program: its tensors, who computes them, and the slots with a job under way."""

    segment: Segment
    numerics: tuple[SlotNumerics, ...]
    """For each slot; empty where nothing is computed."""
    taken: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Tenant:
    """A client; one that only looks and switches has no context."""

    context: int | None
    held: dict[int, _Held] = field(default_factory=dict)


@dataclass(slots=True)
class _Pending:
    """A job whose reply is not out: it needs the machine's word and, if there are numerics, the host's."""

    client: int
    request: int
    held: _Held
    slot: int
    computed: bool = False
    error: NpuopsError | None = None
    outcome: JobCompleted | JobFailed | ContextLost | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """What a device says of itself in a Welcome, and the key it signs quotes with."""

    name: str
    profile: str
    compiler: str
    """Version of the compiler that was released with it."""
    key: SigningKey


class Desk:
    """One machine and its clients."""

    def __init__(self, machine: Machine, pace: DeviceTime, identity: Identity, worker: Worker, clock: Clock) -> None:
        self._machine, self._pace, self._identity = machine, pace, identity
        self._worker, self._clock = worker, clock
        self._tenants: dict[int, _Tenant] = {}
        self._pending: dict[int, _Pending] = {}
        self._tasks: dict[int, Callable[[Finished], None]] = {}
        self._next_task = 1
        self._outbox: list[Outgoing] = []
        self._events: list[DeviceEvent] = []
        self._handlers: dict[type, Callable[[int, Any], None]] = {
            wire.Load: self._load,
            wire.Unload: self._unload,
            wire.Submit: self._submit,
            wire.Advance: self._advance,
            wire.Inject: self._inject,
            wire.ClearFaults: self._clear_faults,
            wire.Reset: self._reset,
            wire.AskStatus: self._status,
            wire.UpdateFirmware: self._update_firmware,
            wire.Attest: self._attest,
        }

    def now_us(self) -> int:
        """The device's time."""
        return self._pace.now_us(self._clock.now_us())

    def take(self, client: int, pid: int, request: wire.Request) -> None:
        """Begin what a client asks for; an error of ours is its reply."""
        try:
            if isinstance(request, wire.Hello):
                self._hello(client, pid, request)
            elif client not in self._tenants:
                raise DeviceError("the first message must be a Hello")
            else:
                self._handlers[type(request)](client, request)
        except NpuopsError as error:
            self._refuse(client, request.id, error)

    def leave(self, client: int) -> None:
        """A client is gone, and with it its context and all that it had on the device."""
        tenant = self._tenants.pop(client, None)
        for job in [job for job, pending in self._pending.items() if pending.client == client]:
            del self._pending[job]
        if tenant is not None and tenant.context is not None:
            with suppress(DeviceLostError):  # the driver crashed, and the context went with it
                self._machine.close_context(tenant.context, self.now_us())

    def turn(self) -> bool:
        """Let the device live up to now; whether `turn` should be called again before anyone sleeps."""
        for finished in self._worker.finished():
            self._tasks.pop(finished.key)(finished)
        jumps = self._pace.pacing is Pacing.FAST and self._is_waited_for()
        moment_us = self._machine.next_event_us() if jumps else None
        if moment_us is not None:
            self._pace.jump_to(moment_us, self._clock.now_us())
        self._hear(self._machine.advance(self.now_us()))
        return moment_us is not None and self._is_waited_for()

    def delay_us(self) -> int | None:
        """When the device itself wants `turn` again because somebody waits; None: not before something else happens."""
        if self._pace.pacing is not Pacing.REALTIME or not self._is_waited_for():
            return None
        moment_us = self._machine.next_event_us()
        return None if moment_us is None else max(0, moment_us - self.now_us())

    def take_outbox(self) -> list[Outgoing]:
        """Replies that are due."""
        found, self._outbox = self._outbox, []
        return found

    def take_events(self) -> list[DeviceEvent]:
        """What happened to the device as a whole."""
        found, self._events = self._events, []
        return found

    def telemetry(self) -> Telemetry:
        """What the device shows now."""
        return self._machine.telemetry(self.now_us())

    def _is_waited_for(self) -> bool:
        return any(pending.outcome is None for pending in self._pending.values())

    def _reply(self, client: int, reply: wire.Reply, descriptor: int | None = None) -> None:
        self._outbox.append((client, reply, descriptor))

    def _refuse(self, client: int, request: int, error: NpuopsError) -> None:
        refusal = wire.Refused(id=request, kind=type(error).__name__, message=error.message, advice=error.advice)
        self._reply(client, refusal)

    def _hello(self, client: int, pid: int, request: wire.Hello) -> None:
        if request.version != wire.VERSION:
            raise DeviceError(
                f"the device speaks protocol {wire.VERSION}, the client {request.version}",
                advice="take the device down and up again with the npuops that the client has",
            )
        if client in self._tenants:
            raise DeviceError("a second Hello on one connection")
        context = None
        if request.priority is not None:
            if request.priority not in _PRIORITIES:
                advice = nearest(request.priority, _PRIORITIES)
                raise OptionError(f"no priority is called {request.priority!r}", advice=advice)
            context = self._machine.open_context(pid, _PRIORITIES[request.priority], self.now_us())
        self._tenants[client] = _Tenant(context)
        identity = self._identity
        self._reply(
            client,
            wire.Welcome(
                id=request.id,
                device=identity.name,
                profile=identity.profile,
                pacing=self._pace.pacing,
                context=context,
            ),
        )

    def _context(self, client: int) -> int:
        context = self._tenants[client].context
        if context is None:
            raise DeviceError("this connection has no context", advice="connect with a priority")
        return context

    def _load(self, client: int, request: wire.Load) -> None:
        context = self._context(client)
        layout = layout_of(request.inputs, request.outputs, request.slots)
        compiler = request.compiler or self._identity.compiler
        now_us = self.now_us()
        self._hear(self._machine.advance(now_us))  # what the device lost until now is not what it gets now
        handle = self._machine.load(context, request.program, compiler, now_us)

        def opened(finished: Finished) -> None:
            if client not in self._tenants:
                return
            error = finished.error
            if error is None:
                try:
                    self._hand_over(client, request.id, handle, layout, finished.value)
                except NpuopsError as raised:
                    error = raised
            if error is not None:
                with suppress(DeviceLostError):  # the device was off meanwhile, and has forgotten it already
                    self._machine.unload(context, handle, self.now_us())
                self._refuse(client, request.id, error)

        if request.model is None:
            opened(Finished(0, None, None))
        else:
            self._start(partial(Numerics, Path(request.model), layout), opened)

    def _hand_over(self, client: int, request: int, handle: int, layout: Layout, numerics: Numerics | None) -> None:
        descriptor = make_segment(layout)
        try:
            segment = Segment(os.dup(descriptor), layout)
            held = _Held(segment, numerics.on(segment) if numerics is not None else ())
        except BaseException:
            os.close(descriptor)
            raise
        self._tenants[client].held[handle] = held
        self._reply(client, wire.Loaded(id=request, handle=handle), descriptor)

    def _unload(self, client: int, request: wire.Unload) -> None:
        try:
            self._machine.unload(self._context(client), request.handle, self.now_us())
        except DeviceLostError:
            self._tenants[client].held.pop(request.handle, None)  # the device has forgotten it, so do we
            raise
        self._tenants[client].held.pop(request.handle, None)
        self._reply(client, wire.Done(id=request.id))

    def _submit(self, client: int, request: wire.Submit) -> None:
        held = self._tenants[client].held.get(request.handle)
        if held is None:
            raise DeviceLostError(f"there is no program {request.handle}", advice="load it again")
        if not 0 <= request.slot < len(held.segment.inputs) or request.slot in held.taken:
            raise OptionError(f"slot {request.slot} is under way, or there is no such slot")
        job = self._machine.submit(self._context(client), request.handle, self.now_us(), canary=request.canary)
        pending = _Pending(client, request.id, held, request.slot)
        self._pending[job] = pending
        held.taken.add(request.slot)
        self._compute(job, pending)

    def _compute(self, job: int, pending: _Pending) -> None:
        """In this thread where that is known to be quick, else in another."""

        def computed(finished: Finished) -> None:
            pending.computed, pending.error = True, finished.error
            self._settle(job)

        numerics = pending.held.numerics[pending.slot] if pending.held.numerics else None
        if numerics is None:
            pending.computed = True
        elif numerics.is_quick:
            computed(attempt(0, numerics.run))
        else:
            self._start(numerics.run, computed)

    def _advance(self, client: int, request: wire.Advance) -> None:
        if self._pace.pacing is not Pacing.MANUAL:
            raise OptionError(
                f"time cannot be moved by hand: the device's pacing is {self._pace.pacing}",
                advice="npuops device up … --pacing manual",
            )
        moment_us = self.now_us() + request.us
        if request.us < 0 or moment_us > _TIME_LIMIT_US:
            raise OptionError(f"time moves forward, and to {_TIME_LIMIT_US} µs in all; by {request.us} µs it cannot")
        self._pace.jump_to(moment_us, self._clock.now_us())
        self._hear(self._machine.advance(self.now_us()))
        self._reply(client, wire.Done(id=request.id))

    def _inject(self, client: int, request: wire.Inject) -> None:
        plan = read_plan({"fault": [{**request.fault, "at_s": 0.0}]}, where="inject")
        for fault in plan.faults:
            self._machine.inject(fault, self.now_us())
        self._reply(client, wire.Done(id=request.id))

    def _clear_faults(self, client: int, request: wire.ClearFaults) -> None:
        self._machine.clear_faults(self.now_us())
        self._reply(client, wire.Done(id=request.id))

    def _reset(self, client: int, request: wire.Reset) -> None:
        self._machine.reset(self.now_us())
        self._reply(client, wire.Done(id=request.id))

    def _status(self, client: int, request: wire.AskStatus) -> None:
        self._reply(client, wire.Status(id=request.id, telemetry=self.telemetry(), uptime_us=self.now_us()))

    def _update_firmware(self, client: int, request: wire.UpdateFirmware) -> None:
        read_header(request.image)
        self._machine.flash(request.image, self.now_us())
        self._reply(client, wire.Done(id=request.id))

    def _attest(self, client: int, request: wire.Attest) -> None:
        seen = self.telemetry()
        if seen.life is Life.HUNG:
            raise DeviceLostError(f"the device does not answer: {seen.why}", advice="reset it")
        if seen.measurements is None:
            raise DeviceError(f"the device is {seen.life}, so no firmware runs that could be measured")
        signed = quote(seen.measurements, request.nonce, self._identity.key)
        self._reply(client, wire.Attested(id=request.id, quote=signed))

    def _start(self, task: Callable[[], Any], then: Callable[[Finished], None]) -> None:
        key, self._next_task = self._next_task, self._next_task + 1
        self._tasks[key] = then
        self._worker.start(key, task)

    def _hear(self, events: tuple[DeviceEvent, ...]) -> None:
        for event in events:
            if isinstance(event, JobCompleted | JobFailed):
                self._end(event.job, event)
            elif isinstance(event, ContextLost):
                self._lose(event)
            else:
                if isinstance(event, LifeChanged) and event.after not in POWERED:
                    self._forget_programs()
                self._events.append(event)

    def _forget_programs(self) -> None:
        """The device has lost its memory: nobody will unload what was in it."""
        for tenant in self._tenants.values():
            tenant.held.clear()

    def _lose(self, event: ContextLost) -> None:
        """Its jobs were reported as failed, if they were reported at all."""
        clients = {key for key, tenant in self._tenants.items() if tenant.context == event.context}
        for job in [job for job, pending in self._pending.items() if pending.client in clients]:
            self._end(job, event)

    def _end(self, job: int, outcome: JobCompleted | JobFailed | ContextLost) -> None:
        pending = self._pending.get(job)
        if pending is not None and pending.outcome is None:
            pending.outcome = outcome
            self._settle(job)

    def _settle(self, job: int) -> None:
        """Reply if both the machine and the host are through. The slot is the client's again with the reply."""
        pending = self._pending.get(job)
        if pending is None or pending.outcome is None or not pending.computed:
            return
        del self._pending[job]
        pending.held.taken.discard(pending.slot)
        outcome = pending.outcome
        if not isinstance(outcome, JobCompleted):
            self._refuse(pending.client, pending.request, lost(outcome))
        elif pending.error is not None:
            self._refuse(pending.client, pending.request, pending.error)
        else:
            if outcome.corruption is not None:
                flip_bits(pending.held.segment.outputs[pending.slot], outcome.corruption)
            self._reply(pending.client, completed(pending.request, outcome))
