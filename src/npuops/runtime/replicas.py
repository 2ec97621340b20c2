"""The devices of a model version together: brought to life, restarted when they end, taken down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from npuops.clock import Clock
from npuops.errors import NotReadyError, NpuopsError
from npuops.events import Observer
from npuops.runtime.facts import ColdCause, DeviceChanged, WorkerEnded, WorkerStarted
from npuops.runtime.replica import SLOTS, DeviceSpec, Replica, Reports, Run
from npuops.runtime.replica_states import Happening, State, after
from npuops.runtime.restart_policy import Backoff
from npuops.runtime.signature import Signature
from npuops.runtime.slots import geometry_of
from npuops.runtime.worker_process import SparePool

_SECOND_US: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What every engine shares.

    Attributes:
        loop: the event loop; everything happens on its thread.
        clock: the machine's; workers read the same one.
        observe: gets the facts.
        spares: where workers come from.
    """

    loop: asyncio.AbstractEventLoop
    clock: Clock
    observe: Observer
    spares: SparePool


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """How the batch curve of a new worker is measured.

    Attributes:
        sizes: rows, for each artifact of a device.
        budget_ms: of time, for each artifact.
        free_bytes: of a slot's inputs, and of its outputs, where a size is free.
    """

    sizes: Callable[[DeviceSpec], Sequence[Sequence[int]]]
    budget_ms: float
    free_bytes: int


class Replicas:
    """All devices of one model version.

    Attributes:
        all: in the order of the options.
    """

    def __init__(
        self,
        identity: tuple[str, str],
        signature: Signature,
        devices: Sequence[DeviceSpec],
        measuring: Measuring,
        services: Services,
        reports: Reports,
        waiting: Callable[[], int],
    ) -> None:
        """Nothing is started yet.

        Args:
            identity: model and version.
            signature: of the version.
            devices: at least one.
            measuring: of new workers.
            services: shared with other engines.
            reports: the engine's; an end is told to it after it was written down here.
            waiting: how many requests wait, for the facts.
        """
        self._identity = identity
        self._measuring, self._services, self._reports, self._waiting = measuring, services, reports, waiting
        told = Reports(ran=reports.ran, failed=reports.failed, ended=self._ended)
        self.all: list[Replica] = []
        for spec in devices:
            rows = max([signature.max_rows, *(bucket.rows or 1 for bucket in spec.buckets)])
            geometry = geometry_of(signature, rows=rows, slots=SLOTS, free_bytes=measuring.free_bytes)
            self.all.append(Replica(spec, geometry, told, batched=signature.batched))
        self._states = {replica.spec.name: State.STOPPED for replica in self.all}
        self._why: dict[str, str] = {}
        self._backoffs = {replica.spec.name: Backoff() for replica in self.all}
        self._ready_since_us: dict[str, int] = {}
        self._restarts: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    def states(self) -> dict[str, tuple[State, str]]:
        """Device → its state, and why."""
        return {name: (state, self._why.get(name, "")) for name, state in self._states.items()}

    @property
    def any_ready(self) -> bool:
        """Whether a device takes runs."""
        return any(replica.ready for replica in self.all)

    async def start(self, cause: ColdCause) -> None:
        """Start all devices; done when each is ready or was refused.

        Raises:
            NpuopsError: the first device's words, where none came up.
        """
        self._closing = False
        results = await asyncio.gather(*(self._start(replica, cause) for replica in self.all), return_exceptions=True)
        if self.any_ready:
            for replica, result in zip(self.all, results, strict=True):
                if isinstance(result, NpuopsError):
                    self._restart_later(replica)
            return
        for result in results:
            if isinstance(result, BaseException):
                raise result
        raise NotReadyError(f"no device of {self._identity[0]} is ready")

    async def stop(self) -> None:
        """End all workers; nothing must be under way."""
        self._closing = True
        for task in list(self._restarts.values()):
            task.cancel()
        await asyncio.gather(*self._restarts.values(), return_exceptions=True)
        self._restarts.clear()
        await asyncio.gather(*(self._stop(replica) for replica in self.all))

    def give_up(self, replica: Replica, why: str) -> None:
        """A device is lost or hangs: end its worker; it is started again, after a while."""
        self._why[replica.spec.name] = why
        replica.kill()

    async def _start(self, replica: Replica, cause: ColdCause) -> None:
        services, name = self._services, replica.spec.name
        self._change(name, Happening.STARTED)
        begun_us = services.clock.now_us()
        try:
            worker = services.spares.take()
            # The old figures still hold after a restart, and measuring would only make it longer.
            sizes = [[] for _ in replica.curves] or self._measuring.sizes(replica.spec)
            phases = dict(await replica.start(worker, sizes, self._measuring.budget_ms))
        except NpuopsError as error:
            self._why[name] = error.message
            self._change(name, Happening.FAILED)
            raise
        except asyncio.CancelledError:
            self._change(name, Happening.STOPPED)
            raise
        now_us = services.clock.now_us()
        seconds = (now_us - begun_us) / 1e6
        phases["spawn"] = max(0.0, seconds - sum(phases.values()))
        self._ready_since_us[name] = now_us
        self._why.pop(name, None)
        self._change(name, Happening.OPENED)
        model, version = self._identity
        services.observe(
            WorkerStarted(
                model=model,
                version=version,
                device=name,
                cause=cause,
                seconds=seconds,
                phases=phases,
                waiting=self._waiting(),
                pid=replica.pid,
            )
        )

    async def _stop(self, replica: Replica) -> None:
        ran = replica.ready
        await replica.stop()
        self._change(replica.spec.name, Happening.STOPPED)
        if ran:
            self._tell_end(replica, "closed", wanted=True, replayed=0)

    def _ended(self, replica: Replica, runs: list[Run], why: str) -> None:
        """A worker is gone without being asked to."""
        name = replica.spec.name
        if self._closing or self._states[name] is not State.READY:
            self._reports.ended(replica, runs, why)
            return
        told = self._why.setdefault(name, f"its worker ended: {why}")
        self._change(name, Happening.LOST)
        self._tell_end(replica, told, wanted=False, replayed=len(runs))
        self._restart_later(replica)
        self._reports.ended(replica, runs, why)

    def _restart_later(self, replica: Replica) -> None:
        name = replica.spec.name
        healthy_us = self._services.clock.now_us() - self._ready_since_us.get(name, self._services.clock.now_us())
        delay_s = self._backoffs[name].next_delay_s(healthy_us / _SECOND_US)
        self._restarts[name] = self._services.loop.create_task(self._restart(replica, delay_s))

    async def _restart(self, replica: Replica, delay_s: float) -> None:
        """Until it is ready again; each failure makes the next pause longer."""
        while not self._closing:
            if delay_s:
                await asyncio.sleep(delay_s)
            try:
                await self._start(replica, ColdCause.CRASH)
            except NpuopsError:
                delay_s = self._backoffs[replica.spec.name].next_delay_s(0.0)
                continue
            return

    def _change(self, name: str, happening: Happening) -> None:
        before = self._states[name]
        state = after(before, happening)
        self._states[name] = state
        if state is not before:
            model, version = self._identity
            fact = DeviceChanged(
                model=model, version=version, device=name, state=state.value, why=self._why.get(name, "")
            )
            self._services.observe(fact)

    def _tell_end(self, replica: Replica, why: str, *, wanted: bool, replayed: int) -> None:
        model, version = self._identity
        self._services.observe(
            WorkerEnded(
                model=model,
                version=version,
                device=replica.spec.name,
                pid=replica.pid,
                wanted=wanted,
                why=why,
                replayed=replayed,
            )
        )
