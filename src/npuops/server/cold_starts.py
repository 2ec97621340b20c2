"""Which models are in memory: requests bring cold ones there, and those that nobody asks for make room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

from npuops.clock import Clock
from npuops.errors import NotReadyError, NotServedError, OverloadedError
from npuops.server.places import OPERATOR
from npuops.server.served_model import ServedModel
from npuops.server.version_loader import Running, VersionLoader
from npuops.server.warm_pool import expired, victim

R = TypeVar("R", bound=Running)

ROOM_WAIT_S: Final = 2.0
_LOOK_S: Final = 0.005


class ColdStarts(Generic[R]):
    """Loads for requests, within a limit of models in memory."""

    def __init__(
        self, models: Mapping[str, ServedModel[R]], clock: Clock, max_loaded: int | None, room_wait_s: float
    ) -> None:
        """Look after `models`, which others fill and empty.

        Args:
            models: by name.
            clock: the one of `Running.last_used_us`.
            max_loaded: models in memory at the same time; None for all.
            room_wait_s: how long a load waits for some model to have no request under way.
        """
        self._models, self._clock, self._max_loaded = models, clock, max_loaded
        self._room_wait_s = room_wait_s
        self._turn = asyncio.Lock()

    @property
    def has_room(self) -> bool:
        """One more model may be loaded without another one leaving."""
        return self._max_loaded is None or self._taken < self._max_loaded

    @property
    def _taken(self) -> int:
        return sum(model.in_memory for model in self._models.values())

    def tick(self) -> None:
        """Put models to rest that nobody used for as long as they are kept."""
        loaded = [model.loaded() for model in self._models.values() if model.in_memory]
        for name in expired(loaded, self._clock.now_us()):
            self._models[name].cool()

    async def wake(self, model: ServedModel[R], loader: VersionLoader[R]) -> R:
        """Load a cold version for a request. All who ask meanwhile wait for the same load.

        Raises:
            NotServedError: it was unloaded.
            NotReadyError: it is no cold version, failed a moment ago, fails now, or there is no room.
            OverloadedError: too many requests wait for it already.
        """
        self._refuse(model, loader)
        model.waiting += 1
        loader.waiting += 1
        try:
            async with self.room(model):
                if not loader.warm and loader.not_before_us <= self._clock.now_us():
                    loader.want(loader.wish)
            await loader.settled()
        finally:
            model.waiting -= 1
            loader.waiting -= 1
        running = loader.running
        if running is None:
            why = model.places.hidden(loader.reason) or "it was unloaded"
            words = f"model {model.name!r} version {loader.version} did not load: {why}"
            raise NotReadyError(words, advice=OPERATOR, retry_after_s=self._wait_s(loader))
        return running

    @asynccontextmanager
    async def room(self, model: ServedModel[R]) -> AsyncIterator[None]:
        """A place in memory for the model, until the end of the block; then it must be loading, or leaves the place.

        Models come in turn: if all claimed their places at once, each would wait for the others to leave. Of one model
        the first request goes for all: those behind it would keep it at work, and it could not make room for another.

        Raises:
            NotReadyError: every other model is at work, and stays so.
        """
        ends_s = asyncio.get_running_loop().time() + self._room_wait_s
        async with model.turn:
            if model.in_memory and not model.leaving:
                model.claims += 1
            else:
                async with self._turn:
                    await self._claim(model, ends_s)
        try:
            yield
        finally:
            model.claims -= 1

    async def _claim(self, model: ServedModel[R], ends_s: float) -> None:
        """Claim first, then make room: what is loaded meanwhile never counts on the same place."""
        model.claims += 1
        try:
            while self._max_loaded is not None and self._taken > self._max_loaded:
                moving = [other for other in self._models.values() if other.leaving]
                if self._taken - len(moving) > self._max_loaded:
                    moving += self._evict(model)
                if not moving:
                    await self._look_again(model, ends_s)
                for other in moving:
                    await other.closed()
        except BaseException:
            model.claims -= 1
            raise

    async def _look_again(self, model: ServedModel[R], ends_s: float) -> None:
        if asyncio.get_running_loop().time() >= ends_s:
            words = f"no room for model {model.name!r}: max_loaded is {self._max_loaded}, and all are at work"
            raise NotReadyError(words, advice="ask again, or raise max_loaded")
        await asyncio.sleep(_LOOK_S)

    def _evict(self, for_whom: ServedModel[R]) -> list[ServedModel[R]]:
        """The models whose next change is worth waiting for: one that leaves now, or those that still come."""
        others = [model for model in self._models.values() if model.in_memory and model is not for_whom]
        staying = [model for model in others if not model.claims and not model.leaving]
        oldest = victim([model.loaded() for model in staying])
        if oldest is not None:
            self._models[oldest].cool()
            return [self._models[oldest]]
        return [model for model in staying if model.busy and not model.loaded().in_flight]

    def _refuse(self, model: ServedModel[R], loader: VersionLoader[R]) -> None:
        where = f"model {model.name!r} version {loader.version}"
        if model.unloaded:
            raise NotServedError(f"{where} was unloaded", advice="load it with the repository extension")
        if not loader.on_demand or loader.not_before_us > self._clock.now_us():
            why = model.why_not(loader.version) or str(loader.state).lower()
            advice = OPERATOR if loader.failed else ""
            raise NotReadyError(f"{where} is not ready: {why}", advice=advice, retry_after_s=self._wait_s(loader))
        if model.waiting >= model.options.queue.max_requests:
            raise OverloadedError(f"{model.waiting} requests wait for {where} to load already")

    def _wait_s(self, loader: VersionLoader[R]) -> float:
        return max(1.0, (loader.not_before_us - self._clock.now_us()) / 1e6)
