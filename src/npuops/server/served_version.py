"""One version of one model while it answers: its engine, and the plans of its requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from npuops.runtime.job import Job
from npuops.runtime.signature import Signature
from npuops.server.plan_cache import PlanCache
from npuops.server.version_spec import VersionSpec

DRAIN_S = 30.0


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
        plans: of its requests.
        labels: output → class names.
        spec: that it was launched with, or follows since.
    """

    __slots__ = ("engine", "labels", "name", "plans", "signature", "spec", "version")

    def __init__(
        self,
        spec: VersionSpec,
        engine: Answers,
        *,
        max_request_bytes: int,
        labels: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Ready to answer."""
        self.name, self.version = spec.model, spec.version
        self.signature: Signature = spec.signature
        self.engine = engine
        self.spec = spec
        self.labels = labels or {}
        self.plans = PlanCache(spec.signature, max_request_bytes=max_request_bytes, labels=labels)

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

    def reconfigure(self, spec: VersionSpec) -> None:
        """Follow other options that need no new launch."""
        self.spec = spec

    async def drain(self) -> None:
        """Return when all that was taken is answered, or its time is over."""
        await self.engine.drain(DRAIN_S)

    async def close(self) -> None:
        """End its processes and give their memory back."""
        await self.engine.close()
