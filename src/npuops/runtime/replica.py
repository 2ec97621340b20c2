"""One device of a model version: its worker process, and the runs under way on it.

The engine hands over runs and takes what comes back; this file knows slots and messages, and no queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from npuops.errors import NpuopsError, RunError
from npuops.runtime import doorbell
from npuops.runtime.batch_curve import BatchCurve
from npuops.runtime.buckets import AxisPadding, Bucket
from npuops.runtime.doorbell import NonsenseError, Place
from npuops.runtime.gathering import Gatherer
from npuops.runtime.job import Job
from npuops.runtime.signature import Shape, Signature
from npuops.runtime.slots import Geometry
from npuops.runtime.worker_process import OpenOrder, WorkerLostError, WorkerProcess

CREDITS: Final = 2
"""Runs that a worker has at once: one under way, and one prepared, so that it never waits for the server."""
SLOTS: Final = CREDITS + 1
"""One more, whose answers are being handed out."""
_LAYOUTS_KEPT: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """One worker's work.

    Attributes:
        name: of the device in metrics and answers, unique within the model version.
        target: that the artifacts were built for.
        artifacts: folders, in the order of `buckets`.
        digests: of their manifests: a worker that starts again must not find another version there.
        buckets: the shapes that the artifacts take.
        fallback: used only as the model's fallback policy allows.
        inline: small runs may be computed in the server's own process.
        environment: of the worker.
    """

    name: str
    target: str
    artifacts: tuple[Path, ...]
    buckets: tuple[Bucket, ...]
    digests: tuple[str, ...] = ()
    fallback: bool = False
    inline: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


class Run:
    """Requests that share a run, and where they lie.

    Attributes:
        number: of the run, on its device.
        rows: of the requests.
        padded: rows that are computed.
        filled: the artifact's shapes, without the batch axis, where they are not the requests'.
        dispatched_us: when it left the queue.
    """

    __slots__ = ("bucket", "dispatched_us", "filled", "jobs", "number", "padded", "rows", "slot")

    def __init__(
        self,
        number: int,
        jobs: list[Job],
        rows: int,
        bucket: Bucket,
        slot: int,
        dispatched_us: int,
        filled: tuple[Shape, ...] | None,
    ) -> None:
        self.number = number
        self.jobs = jobs
        self.rows = rows
        self.padded = rows if bucket.rows is None else bucket.rows
        self.bucket = bucket
        self.slot = slot
        self.dispatched_us = dispatched_us
        self.filled = filled


class Answer:
    """Of a run: where its outputs lie, and when things happened (µs)."""

    __slots__ = ("computed_us", "places", "started_us", "tensors")

    def __init__(self, tensors: bytes, places: tuple[Place, ...], started_us: int, computed_us: int) -> None:
        self.tensors = tensors
        self.places = places
        self.started_us = started_us
        self.computed_us = computed_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """Where a replica reports to: the engine.

    Attributes:
        ran: a run and its answer; the slot is the engine's until it returns.
        failed: a run that the worker refused; True where the device itself is lost.
        ended: the worker is gone, with the runs that were under way.
    """

    ran: Callable[[Replica, Run, Answer], None]
    failed: Callable[[Replica, Run, NpuopsError, bool], None]
    ended: Callable[[Replica, list[Run], str], None]


class Replica:
    """A worker on a device.

    Attributes:
        spec: what it runs.
        under_way: the runs that the worker has, oldest first.
        curves: for each bucket, as measured when it was loaded; without points where it could not be.
        pace: how many times as long as the curves say its runs take now: heat and neighbours slow a device down.
        ready: it takes runs.
        began_us: when the oldest run under way had the worker for itself; without one it means nothing.
        pid: of the worker, or of the last one; 0 before the first.
    """

    def __init__(
        self, spec: DeviceSpec, geometry: Geometry, reports: Reports, signature: Signature, padding: AxisPadding
    ) -> None:
        """`start` brings it to life."""
        self.spec = spec
        self.geometry = geometry
        self.under_way: dict[int, Run] = {}
        self.curves: tuple[BatchCurve, ...] = ()
        self.pace = 1.0
        self.ready = False
        self.began_us = 0
        self.pid = 0
        self._reports, self._batched = reports, signature.batched
        self._gatherer = Gatherer(geometry, signature, padding)
        self._free = list(range(geometry.slots))
        self._worker: WorkerProcess | None = None
        self._leaving: set[WorkerProcess] = set()
        self._next = 0
        self._answers: dict[bytes, tuple[tuple[Place, ...], int, int]] = {}

    @property
    def credits(self) -> int:
        """Runs that it takes now."""
        return max(0, min(CREDITS - len(self.under_way), len(self._free))) if self.ready else 0

    @property
    def view(self) -> memoryview:
        """The memory that it shares with its worker."""
        assert self._worker is not None and self._worker.memory is not None  # noqa: S101, PT018 - only while it runs
        return self._worker.memory.view

    async def start(
        self,
        worker: WorkerProcess,
        sizes: Sequence[Sequence[int]],
        budget_ms: float,
        limit_s: float,
        *,
        background: bool = False,
    ) -> Mapping[str, float]:
        """Load, warm up and measure, if so with low priority; gives the phases in seconds.

        Raises:
            NpuopsError: as the worker met it; the process is on its way out then.
            WorkerLostError: it ended, or took longer than `limit_s`.
        """
        order = OpenOrder(
            artifacts=self.spec.artifacts,
            digests=self.spec.digests,
            geometry=self.geometry,
            sizes=tuple(tuple(rows) for rows in sizes),
            budget_ms=budget_ms,
            background=background,
            environment=self.spec.environment,
        )
        self._leaving = {each for each in self._leaving if each.is_alive}
        self._worker = worker
        self.pid = worker.pid
        self._free = list(range(self.geometry.slots))
        try:
            async with asyncio.timeout(limit_s):
                opened = await worker.open(order, partial(self._hear, worker), partial(self._end, worker))
        except BaseException as error:
            self._let_go(worker)
            if isinstance(error, TimeoutError):
                raise WorkerLostError(
                    f"{self.spec.name} did not load within {limit_s:g} s", advice="is the device hanging?"
                ) from error
            raise
        self._keep(opened.curves)
        self.pace = 1.0
        self.ready = True
        return opened.phases

    def run(self, jobs: list[Job], rows: int, bucket: Bucket, now_us: int) -> None:
        """Copy the inputs into a slot and ring. Where the worker is gone, its end is told soon, with this run.

        Raises:
            TooLargeError: the inputs do not fit into a slot.
            DataError: a part has not the size of its shape.
        """
        slot = self._free.pop()
        try:
            work = self._gatherer.gather(self.view, jobs, rows, bucket, slot)
        except BaseException:
            self._free.append(slot)
            raise
        self._next = number = (self._next + 1) & 0xFFFFFFFF
        if not self.under_way:
            self.began_us = now_us
        filled = self._gatherer.filled(bucket, jobs[0].form)
        self.under_way[number] = Run(number, jobs, rows, bucket, slot, now_us, filled)
        assert self._worker is not None  # noqa: S101 - `credits` is 0 otherwise
        self._worker.send(doorbell.pack_run(number, work))

    def kill(self, why: str = "") -> None:
        """End the worker at once; `ended` is reported."""
        self.ready = False
        if self._worker is not None:
            self._worker.kill(why)

    async def stop(self, why: str) -> None:
        """End the worker, and see that it is gone. What was under way, and must not be, is reported as ended."""
        ran, self.ready = self.ready, False
        worker, self._worker = self._worker, None
        runs = list(self.under_way.values())
        self.under_way.clear()
        if runs:
            self._reports.ended(self, runs, why)
        if worker is not None:
            if not ran or runs:
                worker.kill()  # it is at work, and would not look up
            await worker.close()
        for each in list(self._leaving):
            await each.ended()

    def _let_go(self, worker: WorkerProcess) -> None:
        """It did not come up."""
        if self._worker is worker:
            self._worker = None
        worker.kill()
        if worker.is_alive:
            self._leaving.add(worker)

    def _keep(self, curves: Sequence[Sequence[tuple[int, float]]]) -> None:
        """A restart does not measure: the figures from before still hold."""
        if len(self.curves) != len(curves):
            self.curves = tuple(BatchCurve(tuple(points)) for points in curves)

    def _hear(self, worker: WorkerProcess, message: bytes) -> None:
        if worker is not self._worker:
            return  # one that was given up
        number = doorbell.batch_of(message)
        if message[0] == doorbell.FAILED:
            told = doorbell.unpack_failed(message)
            run = self._taken(number)
            self._free.append(run.slot)
            self._reports.failed(self, run, doorbell.raised(told), told.lost)
            return
        _, started_us, computed_us, _, tensors = doorbell.unpack_ran(message)
        places, slot, rows = self._answers.get(tensors) or self._judged(tensors)
        run = self._taken(number)
        if slot not in {run.slot, -1}:
            self.under_way[number] = run  # it runs again, once this worker is gone
            raise NonsenseError(f"outputs of run {number} in slot {slot}, which is not its own")
        if rows != run.padded and self._batched and places:
            self._free.append(run.slot)
            what = f"{rows} rows" if rows >= 0 else "outputs of different numbers of rows"
            self._reports.failed(self, run, RunError(f"the model gave {what} for {run.padded}"), False)
            return
        self.began_us = computed_us
        try:
            self._reports.ran(self, run, Answer(tensors, places, started_us, computed_us))
        finally:
            self._free.append(run.slot)

    def _taken(self, number: int) -> Run:
        try:
            return self.under_way.pop(number)
        except KeyError as error:
            raise NonsenseError(f"an answer to run {number}, which nobody asked for") from error

    def _judged(self, tensors: bytes) -> tuple[tuple[Place, ...], int, int]:
        """The places of an answer, their slot (-1: they are empty), and their rows (-1: not all the same)."""
        places = doorbell.unpack_places(tensors)
        slot_bytes, outputs = self.geometry.slot_bytes, self.geometry.output_offset
        slots = {place.offset // slot_bytes for place in places if place.size}
        slot = slots.pop() if slots else -1
        begin = slot * slot_bytes + outputs
        for place in places:
            if place.size and (slots or not begin <= place.offset <= (slot + 1) * slot_bytes - place.size):
                raise NonsenseError(f"outputs outside of slot {slot}")
        rows = {place.shape[0] if place.shape else -1 for place in places}
        judged = (places, slot, rows.pop() if len(rows) == 1 else -1)
        if len(self._answers) >= _LAYOUTS_KEPT:
            self._answers.clear()
        self._answers[tensors] = judged
        return judged

    def _end(self, worker: WorkerProcess, why: str) -> None:
        self._leaving.discard(worker)
        if worker is not self._worker:
            return
        self.ready = False
        self._worker = None
        runs = list(self.under_way.values())
        self.under_way.clear()
        self._reports.ended(self, runs, why)
