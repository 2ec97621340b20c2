"""One version of one model while it answers: its engine, and the plans of its requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from npuops.runtime.engine import Engine
from npuops.runtime.job import NO_DEADLINE, Job
from npuops.runtime.signature import Signature
from npuops.server.engine_settings import engine_options
from npuops.server.plan_cache import PlanCache
from npuops.server.version_spec import VersionSpec


class Answers(Protocol):
    """Takes the requests of one model version: an engine, or a chain of them."""

    def submit(self, job: Job) -> None:
        """Take a request; its receiver is called exactly once, unless it is cancelled."""
        ...

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more."""
        ...

    async def drain(self, limit_s: float) -> bool:
        """Wait until all that was taken is answered; False where the time is over first."""
        ...

    async def close(self) -> None:
        """End its processes."""
        ...

    @property
    def is_ready(self) -> bool:
        """A device takes requests."""
        ...

    @property
    def signature(self) -> Signature:
        """What requests must look like."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests that are not answered."""
        ...

    @property
    def last_used_us(self) -> int:
        """When the last request came."""
        ...


class ServedVersion:
    """What the repository keeps, and what both front ends look up for every request.

    Attributes:
        name, version: as requests say them.
        signature: what requests must look like.
        engine: where they go.
        hurries: requests have a deadline even where they do not say one.
        plans: of its requests.
        labels: output → class names.
        spec: that it was launched with, or follows since.
    """

    __slots__ = (
        "_default_us",
        "_most_us",
        "_on_close",
        "engine",
        "hurries",
        "labels",
        "name",
        "plans",
        "signature",
        "spec",
        "version",
    )

    def __init__(
        self,
        spec: VersionSpec,
        engine: Answers,
        labels: Mapping[str, Sequence[str]] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        """Ready to answer. `on_close` is called when the processes are gone."""
        self._on_close = on_close
        self.name, self.version = spec.model, spec.version
        self.signature: Signature = spec.signature
        self.engine = engine
        self.spec = spec
        self.labels = labels or {}
        self.plans = PlanCache(spec.signature, max_request_bytes=spec.options.max_request_bytes, labels=labels)
        self._set_times(spec)

    @property
    def ready(self) -> bool:
        """Some device of it can answer now."""
        return self.engine.is_ready

    @property
    def in_flight(self) -> int:
        """Requests that are not answered, those that wait included."""
        return self.engine.in_flight

    @property
    def last_used_us(self) -> int:
        """When the last request came."""
        return self.engine.last_used_us

    def deadline_us(self, now_us: int, asked_us: int) -> int:
        """Of a request that came now and may take `asked_us` (0: it did not say), by `[queue]` of the model."""
        wait_us = min(asked_us or self._default_us, self._most_us)
        return now_us + wait_us if wait_us < NO_DEADLINE else NO_DEADLINE

    def reconfigure(self, spec: VersionSpec) -> None:
        """Follow other options that need no new launch."""
        self.spec = spec
        self._set_times(spec)
        if isinstance(self.engine, Engine):
            self.engine.reconfigure(engine_options(spec.options, spec.signature))

    def _set_times(self, spec: VersionSpec) -> None:
        queue = spec.options.queue
        self._default_us = NO_DEADLINE if queue.default_timeout_ms is None else int(queue.default_timeout_ms * 1000)
        self._most_us = NO_DEADLINE if queue.max_timeout_ms is None else int(queue.max_timeout_ms * 1000)
        self.hurries = min(self._default_us, self._most_us) < NO_DEADLINE

    async def drain(self, limit_s: float) -> None:
        """Return when all that was taken is answered, or so much time is over."""
        await self.engine.drain(limit_s)

    async def close(self) -> None:
        """End its processes and give their memory back. A second call does nothing."""
        try:
            await self.engine.close()
        finally:
            on_close, self._on_close = self._on_close, None
            if on_close is not None:
                on_close()
