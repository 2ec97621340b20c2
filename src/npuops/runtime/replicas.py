"""The devices of a model version together: brought to life, restarted when they end, taken down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from npuops.clock import Clock
from npuops.errors import ArtifactError, DeviceLostError, NpuopsError, UsageError
from npuops.events import Observer
from npuops.runtime.ailment import Ailment, resting
from npuops.runtime.buckets import AxisPadding
from npuops.runtime.doorbell import check_sizes
from npuops.runtime.facts import ColdCause, DeviceChanged, WorkerEnded, WorkerStarted
from npuops.runtime.replica import SLOTS, DeviceSpec, Replica, Reports, Run
from npuops.runtime.replica_states import Happening, State, after
from npuops.runtime.restart_policy import Backoff
from npuops.runtime.signature import Signature
from npuops.runtime.slots import geometry_of
from npuops.runtime.worker_process import SparePool, WorkerLostError

_SECOND_US: Final = 1_000_000
_LOOK_S: Final = 0.02
"""How often a device that is to rest is looked at for the end of its runs."""
_HOPELESS: Final = (ArtifactError, UsageError)
"""Starting again changes nothing."""


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
class Preparation:
    """How a new worker is prepared.

    Attributes:
        sizes: rows to measure the batch curve at, for each artifact of a device.
        budget_ms: of time for that, for each artifact.
        free_bytes: of a slot's inputs, and of its outputs, where a size is free.
        open_limit_s: a worker that takes longer to load is taken for hanging.
        padding: along other axes than that of the batch.
    """

    sizes: Callable[[DeviceSpec], Sequence[Sequence[int]]]
    budget_ms: float
    free_bytes: int
    open_limit_s: float
    padding: AxisPadding


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who is told about the devices, besides the observer: the engine.

    Attributes:
        reports: of runs; an end is told after it was written down here.
        changed: a device went from one state to another.
        waiting: how many requests wait, for the facts.
    """

    reports: Reports
    changed: Callable[[], None]
    waiting: Callable[[], int]


class Replicas:
    """All devices of one model version.

    Attributes:
        all: in the order of the options.
        any_ready: a device takes runs.
        own_ready: one that is no fallback does.
        own_failed: each that is no fallback was refused when it was last started, or rests.
    """

    def __init__(
        self,
        identity: tuple[str, str],
        signature: Signature,
        devices: Sequence[DeviceSpec],
        preparation: Preparation,
        services: Services,
        listener: Listener,
    ) -> None:
        """Nothing is started yet.

        Args:
            identity: model and version.
            signature: of the version.
            devices: at least one.
            preparation: of new workers.
            services: shared with other engines.
            listener: the engine's.

        Raises:
            OptionError: more tensors or artifacts than a worker can be told of, or no memory is so large.
        """
        self._identity = identity
        self._preparation, self._services, self._listener = preparation, services, listener
        told = Reports(ran=listener.reports.ran, failed=listener.reports.failed, ended=self._ended)
        self.all: list[Replica] = []
        for spec in devices:
            check_sizes(signature.inputs, signature.outputs, len(spec.artifacts))
            rows = max([signature.max_rows, *(bucket.rows or 1 for bucket in spec.buckets)])
            geometry = geometry_of(signature, rows=rows, slots=SLOTS, free_bytes=preparation.free_bytes)
            self.all.append(Replica(spec, geometry, told, signature, preparation.padding))
        self.any_ready = self.own_ready = self.own_failed = False
        self._failed: set[str] = set()
        self._states = {replica.spec.name: State.STOPPED for replica in self.all}
        self._why: dict[str, str] = {}
        self._backoffs = {replica.spec.name: Backoff() for replica in self.all}
        self._ready_since_us: dict[str, int] = {}
        self._restarts: dict[str, asyncio.Task[None]] = {}
        self._fit = {replica.spec.name: asyncio.Event() for replica in self.all}
        for fit in self._fit.values():
            fit.set()
        self._resting: set[str] = set()
        self._closing = False

    def states(self) -> dict[str, tuple[State, str]]:
        """Device → its state, and why."""
        return {name: (state, self._why.get(name, "")) for name, state in self._states.items()}

    def why_down(self) -> str:
        """What ails the devices that take no runs."""
        return "; ".join(
            f"{name}: {self._why.get(name) or state}"
            for name, state in self._states.items()
            if state is not State.READY
        )

    async def start(self, cause: ColdCause, *, background: bool = False) -> None:
        """Start all devices; done when each is ready or was refused.

        Args:
            cause: for the facts.
            background: with low priority, since other engines answer meanwhile. A restart never is.

        Raises:
            NpuopsError: the first device's words, where none came up.
        """
        self._closing = False
        starts = [
            self._services.loop.create_task(self._start(replica, cause, background=background)) for replica in self.all
        ]
        try:
            await asyncio.wait(starts)
        except asyncio.CancelledError:
            for task in starts:
                task.cancel()
            await asyncio.wait(starts)
            raise
        errors = {replica: task.exception() for replica, task in zip(self.all, starts, strict=True)}
        for error in errors.values():
            if error is not None and (not self.any_ready or not isinstance(error, NpuopsError)):
                raise error
        for replica, error in errors.items():
            if isinstance(error, NpuopsError):
                self._restart_later(replica, error)

    async def stop(self, why: str) -> None:
        """End all workers. What is under way, and must not be, is reported as ended."""
        self._closing = True
        restarts = list(self._restarts.values())
        self._restarts.clear()
        self._resting.clear()
        for task in restarts:
            task.cancel()
        await asyncio.gather(*restarts, return_exceptions=True)
        await asyncio.gather(*(self._stop(replica, why) for replica in self.all))

    def give_up(self, replica: Replica, why: str) -> None:
        """A device is lost or hangs: end its worker; it is started again, after a while."""
        self._why[replica.spec.name] = why
        replica.kill(why)
        self._count_ready()

    def heed(self, ailing: Mapping[str, Ailment]) -> None:
        """Let devices rest that are not well, and those that are well again work. Worth a call each second.

        A device that rests has no worker: its runs are finished, or go elsewhere where nobody would answer them.
        When it is well it is started anew, which is its probe.

        Args:
            ailing: device → what ails it; devices that are not named are well, or say nothing.
        """
        if self._closing:
            return
        able = [replica.spec.name for replica in self.all if replica.ready and not replica.spec.fallback]
        rest = resting(ailing, able)
        for replica in self.all:
            name = replica.spec.name
            ailment = rest.get(name)
            if ailment is None:
                self._fit[name].set()
                continue
            self._fit[name].clear()
            if replica.ready:
                self._failed.add(name)
                self._rest(replica, ailment)
            elif self._states[name] is State.SICK:
                self._failed.add(name)
                self._why[name] = ailment.why
                self._count_ready()

    def _rest(self, replica: Replica, ailment: Ailment) -> None:
        name, why = replica.spec.name, ailment.why
        self._why[name] = why
        if ailment.answers:
            replica.ready = False
            self._resting.add(name)
            self._change(name, Happening.SICKENED)
            self._restarts[name] = self._services.loop.create_task(self._finish(replica, why))
        elif replica.under_way:
            # As if the worker had told it of the run that it is at: no request is to blame.
            run = replica.under_way.pop(next(iter(replica.under_way)))
            self._listener.reports.failed(replica, run, DeviceLostError(why), True)
        else:
            self.give_up(replica, why)

    async def _finish(self, replica: Replica, why: str) -> None:
        """The engine watches over runs that hang, here as elsewhere."""
        while replica.under_way:
            await asyncio.sleep(_LOOK_S)
        replica.kill(why)

    async def _start(self, replica: Replica, cause: ColdCause, *, background: bool = False) -> None:
        services, name, preparation = self._services, replica.spec.name, self._preparation
        self._change(name, Happening.STARTED)
        begun_us = services.clock.now_us()
        try:
            worker = services.spares.take()
            # The old figures still hold after a restart, and measuring would only make it longer.
            sizes = [[] for _ in replica.curves] or preparation.sizes(replica.spec)
            phases = dict(
                await replica.start(
                    worker, sizes, preparation.budget_ms, preparation.open_limit_s, background=background
                )
            )
            if not worker.is_alive:  # it ended after it had opened, before this task was told so
                replica.ready = False
                raise WorkerLostError(f"the worker {worker.pid} ended as soon as it was ready")
        except NpuopsError as error:
            self._why[name] = error.message
            self._failed.add(name)
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
        self._failed.discard(name)
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
                waiting=self._listener.waiting(),
                pid=replica.pid,
            )
        )

    async def _stop(self, replica: Replica, why: str) -> None:
        ran = replica.ready
        await replica.stop(why)
        self._change(replica.spec.name, Happening.STOPPED)
        if ran:
            self._tell_end(replica, why, wanted=True, replayed=0)

    def _ended(self, replica: Replica, runs: list[Run], why: str) -> None:
        """A worker is gone without being asked to."""
        name = replica.spec.name
        if not self._closing and name in self._resting:
            self._resting.discard(name)
            self._restarts.pop(name).cancel()
            self._tell_end(replica, self._why.get(name, why), wanted=True, replayed=len(runs))
            self._restart_later(replica, None)
        elif not self._closing and self._states[name] is State.READY:
            told = self._why.setdefault(name, f"its worker ended: {why}")
            self._change(name, Happening.LOST)
            self._tell_end(replica, told, wanted=False, replayed=len(runs))
            self._restart_later(replica, None)
        self._listener.reports.ended(replica, runs, why)

    def _restart_later(self, replica: Replica, error: NpuopsError | None) -> None:
        """`error`: of the start that failed, if it was one."""
        if isinstance(error, _HOPELESS):
            return  # it says why in its state; only another artifact or another option helps
        name, now_us = replica.spec.name, self._services.clock.now_us()
        healthy_us = now_us - self._ready_since_us.get(name, now_us)
        delay_s = self._backoffs[name].next_delay_s(healthy_us / _SECOND_US)
        self._restarts[name] = self._services.loop.create_task(self._restart(replica, delay_s))

    async def _restart(self, replica: Replica, delay_s: float) -> None:
        """Until it is ready again; each failure makes the next pause longer. Not while it has to rest."""
        cause, fit = ColdCause.CRASH, self._fit[replica.spec.name]
        while True:
            if delay_s:
                await asyncio.sleep(delay_s)
            if not fit.is_set():
                cause = ColdCause.HEALTH
                await fit.wait()
            try:
                await self._start(replica, cause)
            except _HOPELESS:
                return
            except NpuopsError:
                delay_s = self._backoffs[replica.spec.name].next_delay_s(0.0)
                continue
            return

    def _change(self, name: str, happening: Happening) -> None:
        before = self._states[name]
        if self._closing and happening is not Happening.STOPPED:
            return  # whatever becomes of a start meanwhile, the device is on its way out
        state = after(before, happening)
        self._states[name] = state
        self._count_ready()
        if state is not before:
            model, version = self._identity
            fact = DeviceChanged(
                model=model, version=version, device=name, state=state.value, why=self._why.get(name, "")
            )
            self._services.observe(fact)
            self._listener.changed()

    def _count_ready(self) -> None:
        ready = [replica for replica in self.all if replica.ready]
        self.any_ready = bool(ready)
        self.own_ready = any(not replica.spec.fallback for replica in ready)
        self.own_failed = all(replica.spec.name in self._failed for replica in self.all if not replica.spec.fallback)

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
