"""A lane carries one request at a time and settles each exactly once; what HTTP's and gRPC's have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol


class Lane(Protocol):
    """What a stage asks of a lane."""

    kind: int
    started_s: float
    lag_s: float
    busy: bool
    reconnects: int
    received_bytes: int

    @property
    def is_open(self) -> bool:
        """There is a connection."""
        ...

    async def open(self) -> None:
        """Connect, if that works."""
        ...

    def send(self, kind: int) -> None:
        """Send the request."""
        ...

    def fail(self, code: int) -> None:
        """Settle it so, now."""
        ...

    def close(self) -> None:
        """End, silently."""
        ...


MakeLane = Callable[[Callable[[Any, int], None]], Lane]
"""Takes who is told of an end."""


class TaskLane:
    """A request, the task that may be busy with it, and who is told of its end.

    Attributes:
        kind: of the request.
        started_s: when it was due; whoever sends sets it.
        lag_s: how late it was sent; as above.
        busy: it is not settled yet.
        reconnects: connections after the first.
        received_bytes: of all answers.
    """

    __slots__ = ("_loop", "_settled", "_task", "busy", "kind", "lag_s", "received_bytes", "reconnects", "started_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, settled: Callable[[Any, int], None]) -> None:
        self._loop = loop
        self._settled = settled
        self._task: asyncio.Task[None] | None = None
        self.kind = 0
        self.started_s = 0.0
        self.lag_s = 0.0
        self.busy = False
        self.reconnects = 0
        self.received_bytes = 0

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = self._loop.create_task(work)

    def _cancel(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _settle(self, code: int) -> None:
        if self.busy:
            self.busy = False
            self._settled(self, code)
