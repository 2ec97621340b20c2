"""Brings one version of one model to where it is wanted: loaded, at rest, or gone. One task at a time does the work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from npuops.clock import Clock
from npuops.errors import (
    BusyError,
    DeviceError,
    NpuopsError,
    StorageError,
    ToolchainCrashError,
    ToolchainTimeoutError,
)
from npuops.events import Observer, Warned
from npuops.runtime.facts import ColdCause
from npuops.runtime.version_facts import VersionChanged
from npuops.runtime.worker_process import WorkerLostError
from npuops.server.model_life import LifeEvent, ModelState, next_state
from npuops.server.version_spec import VersionSpec
from npuops.server.warm_pool import back_off_s


class Running(Protocol):
    """A version that is loaded and warm: it takes requests until it is drained."""

    @property
    def ready(self) -> bool:
        """Some device of it can answer now."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests that are not answered, those that wait included."""
        ...

    @property
    def last_used_us(self) -> int:
        """Arrival of the last request, or the end of the load, on the clock of the repository."""
        ...

    def reconfigure(self, spec: VersionSpec) -> None:
        """Follow other options that need no new launch (`ModelOptions.needs_reload`)."""
        ...

    async def drain(self, limit_s: float) -> None:
        """Return when all requests are answered, or so much time is over; no new one comes."""
        ...

    async def close(self) -> None:
        """End its processes and give their memory back. A second call does nothing."""
        ...


PASSING: Final = (
    WorkerLostError,
    ToolchainTimeoutError,
    ToolchainCrashError,
    DeviceError,
    StorageError,
    BusyError,
    OSError,
    MemoryError,
)
"""A version that failed with one of these is tried again after a pause, though nothing of it has changed: a worker that
was killed for the memory of others, a device that did not answer, a disk that was full."""

R = TypeVar("R", bound=Running)
R_co = TypeVar("R_co", bound=Running, covariant=True)


class Launcher(Protocol[R_co]):
    """Starts versions; the real one starts worker processes."""

    async def launch(self, spec: VersionSpec, cause: ColdCause) -> R_co:
        """Verify, load and warm up. When it is cancelled it leaves nothing behind.

        Raises:
            NpuopsError: it cannot be served; nothing is left behind.
        """
        ...


class VersionLoader(Generic[R]):
    """One version of one model.

    Attributes:
        state: see `NEXT` of `npuops.server.model_life`.
        reason: why it is not as wanted; "" where it is.
        error: what the last launch failed with.
        running: what answers requests; None while it is not ready.
        spec: of `running`.
        wish: what it should be; None where it should be gone.
        warm: the wish should be in memory.
        proven: it could answer before.
        waiting: requests that wait for it, for the fact.
    """

    def __init__(
        self,
        model: str,
        version: str,
        *,
        launcher: Launcher[R],
        gate: asyncio.Semaphore,
        clock: Clock,
        observe: Observer,
        drain_s: float,
        changed: Callable[[VersionLoader[R]], None],
    ) -> None:
        self.model, self.version = model, version
        self.state = ModelState.UNAVAILABLE
        self.reason = ""
        self.error: BaseException | None = None
        self.running: R | None = None
        self.spec: VersionSpec | None = None
        self.wish: VersionSpec | None = None
        self.warm = False
        self.proven = False
        self.waiting = 0
        self.not_before_us = 0
        self.loaded_us = 0
        self._on_demand = False
        self._failures = 0
        self._tries = 0
        self._failed: VersionSpec | None = None
        self._launcher, self._gate, self._clock = launcher, gate, clock
        self._observe, self._drain_s, self._changed = observe, drain_s, changed
        self._task: asyncio.Task[None] | None = None
        self._launch: asyncio.Task[R] | None = None
        self._launching: VersionSpec | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def able(self) -> bool:
        """A request gets an answer from it: now, or after a cold start."""
        return self.state is ModelState.READY or (self.on_demand and not self._failures)

    @property
    def on_demand(self) -> bool:
        """It rests, or comes back from there: a request may load it."""
        return self._on_demand and self.wish is not None and self.running is None

    @property
    def failed(self) -> bool:
        """Nothing of it answers, and what is there now was tried in vain."""
        tried = self.wish is not None and (self._failures > 0 or self._has_failed(self.wish))
        return tried and self.running is None and not self.busy

    @property
    def retiring(self) -> bool:
        """What was replaced is not gone yet."""
        return bool(self._retiring)

    @property
    def in_memory(self) -> bool:
        """It has memory, or will have it in a moment."""
        coming_or_going = self.state in {ModelState.LOADING, ModelState.UNLOADING} or (self.warm and self.busy)
        return self.running is not None or coming_or_going or self.retiring

    @property
    def busy(self) -> bool:
        """It is being loaded, replaced or closed."""
        return self._task is not None and not self._task.done()

    def want(self, wish: VersionSpec | None, *, warm: bool = True, retry: bool = False) -> None:
        """Set what it should be; whoever wants to see it so awaits `settled`.

        A launch under way for something else is cancelled. A version that failed is not tried again until its files
        or options change, unless it failed with what may pass (`PASSING`).

        Args:
            wish: None to close it.
            warm: False leaves it to the next request.
            retry: try again even what failed.
        """
        if retry or (wish is not None and self.wish is not None and not _is_same_try(wish, self.wish)):
            self._failures, self._tries, self.not_before_us = 0, 0, 0
        if retry:
            self._failed = None
        self.wish, self.warm = wish, warm and wish is not None
        if self._launch is not None and not self._launch_is_wanted():
            self._launch.cancel()
        if self.running is not None and self.spec is not None and wish is not None and wish.runs_like(self.spec):
            self.error, self._failed, self.reason = None, None, ""  # what it was to be replaced by is gone
        if not self.busy and not self._is_settled():
            self._task = asyncio.get_running_loop().create_task(self._settle())

    async def settled(self) -> None:
        """Return when it is where it was wanted, or failed to get there. Cancelling this stops nothing."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def closed(self) -> None:
        """Return when also the versions that were replaced are gone."""
        await self.settled()
        if self._retiring:
            await asyncio.wait(self._retiring)

    def _is_settled(self) -> bool:
        """Nothing to do; on the way there the loop of `_settle` asks the same questions."""
        wish = self.wish
        if wish is None:
            return self.running is None and self.state is ModelState.UNAVAILABLE
        if not self.warm:
            return self.running is None and self.state is ModelState.COLD
        if self.running is not None and self.spec is not None and wish.runs_like(self.spec):
            return wish.is_same(self.spec)
        return self._has_failed(wish)

    def _has_failed(self, wish: VersionSpec) -> bool:
        return self._failed is not None and _is_same_try(wish, self._failed)

    def _launch_is_wanted(self) -> bool:
        return (
            self.warm and self.wish is not None and self._launching is not None and self.wish.runs_like(self._launching)
        )

    async def _settle(self) -> None:
        while not self._is_settled():
            wish = self.wish
            if wish is None or not self.warm:
                await self._leave()
            elif self.running is not None and self.spec is not None and wish.runs_like(self.spec):
                self.running.reconfigure(wish)
                self.spec = wish
                self._changed(self)
            else:
                await self._load(wish)

    async def _leave(self) -> None:
        """Close what runs, then rest or be gone."""
        if self.running is not None:
            old, self.running, self.spec = self.running, None, None
            self._on_demand = self.wish is not None
            self.proven = self.proven and self._on_demand
            self._become(LifeEvent.UNLOAD)
            started_us = self._clock.now_us()
            await self._end(old)
            self._become(LifeEvent.CLOSED, seconds=self._since(started_us))
        elif self.state is ModelState.COLD:
            self._on_demand, self.proven = False, False
            self._become(LifeEvent.UNLOAD)
        elif self.wish is not None:
            self._on_demand = True
            self._become(LifeEvent.REST, self.reason)

    async def _load(self, wish: VersionSpec) -> None:
        cause = ColdCause.WAKE if self.on_demand else ColdCause.LOAD
        if self.running is None:
            self._become(LifeEvent.LOAD)
        started_us = self._clock.now_us()
        self._launching = wish
        self._launch = asyncio.get_running_loop().create_task(self._gated(wish, cause))
        try:
            await asyncio.wait({self._launch})
        finally:
            launch, self._launch = self._launch, None
            launch.cancel()
        if launch.cancelled():
            self._give_up()
        elif (error := launch.exception()) is not None:
            self._note_failure(wish, error, seconds=self._since(started_us))
        elif not self._launch_is_wanted():
            await self._end(launch.result())
            self._give_up()
        else:
            self._install(launch.result(), wish, seconds=self._since(started_us))

    async def _gated(self, wish: VersionSpec, cause: ColdCause) -> R:
        async with self._gate:
            return await self._launcher.launch(wish, cause)

    def _install(self, new: R, wish: VersionSpec, *, seconds: float) -> None:
        old, self.running, self.spec = self.running, new, wish
        self.error, self._failed, self._failures, self._tries = None, None, 0, 0
        self.proven, self._on_demand = True, False
        self.loaded_us = self._clock.now_us()
        self._become(LifeEvent.LOADED, seconds=seconds)
        if old is not None:
            task = asyncio.get_running_loop().create_task(self._end(old))
            self._retiring.add(task)
            task.add_done_callback(self._forget_retired)

    def _forget_retired(self, task: asyncio.Task[None]) -> None:
        self._retiring.discard(task)
        self._changed(self)

    def _give_up(self) -> None:
        if self.running is None:
            self._become(LifeEvent.CANCELLED)

    def _note_failure(self, wish: VersionSpec, error: BaseException, *, seconds: float) -> None:
        words = _words(error)
        self.error = error
        if self.on_demand:  # the model stays cold, and is left alone for a while
            self._failures += 1
            self.not_before_us = self._clock.now_us() + int(back_off_s(self._failures) * 1e6)
            self.warm = False
        else:
            self._failed = wish
            if isinstance(error, PASSING):
                self._tries += 1
                asyncio.get_running_loop().call_later(back_off_s(self._tries), self._try_again, wish)
        if self.running is not None:
            words = f"what was loaded before still answers; its replacement failed: {words}"
        self._become(LifeEvent.FAILED, words, seconds=seconds)

    def _try_again(self, wish: VersionSpec) -> None:
        """What it failed with may be over."""
        if self._failed is wish and self.wish is not None and not self.busy:
            self._failed = None
            if not self._is_settled():
                self._task = asyncio.get_running_loop().create_task(self._settle())

    async def _end(self, running: R) -> None:
        try:
            try:
                await running.drain(self._drain_s)
            finally:
                await running.close()
        except Exception as error:  # noqa: BLE001 - whatever ails one device, the version is gone and others go on
            words = f"{self.model} version {self.version} did not end well: {_words(error)}"
            self._observe(Warned(step="unload", message=words, advice=getattr(error, "advice", "")))

    def _since(self, started_us: int) -> float:
        return (self._clock.now_us() - started_us) / 1e6

    def _become(self, event: LifeEvent, reason: str = "", *, seconds: float | None = None) -> None:
        self.state = next_state(self.state, event)
        self.reason = reason
        self._changed(self)  # first the pointers move, then the world is told
        self._observe(
            VersionChanged(
                model=self.model,
                version=self.version,
                state=str(self.state),
                event=str(event),
                reason=reason,
                seconds=seconds,
                waiting=self.waiting,
            )
        )


def _is_same_try(wish: VersionSpec, other: VersionSpec) -> bool:
    """Launching the one would end as launching the other did. Bytes that are mended change no digest, but a stamp."""
    stamps = ([item.stamp for item in spec.artifacts] for spec in (wish, other))
    return wish.runs_like(other) and next(stamps) == next(stamps)


def _words(error: BaseException) -> str:
    return error.message if isinstance(error, NpuopsError) else f"{type(error).__name__}: {error}"
