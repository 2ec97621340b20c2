"""One device of a model version: its worker process, the runs under way on it, and its life.

The engine hands over runs and takes what comes back; this file knows slots, messages and restarts, and no queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from npuops.errors import NpuopsError, TooLargeError
from npuops.runtime import doorbell
from npuops.runtime.batch_curve import BatchCurve
from npuops.runtime.buckets import Bucket
from npuops.runtime.doorbell import Place
from npuops.runtime.job import Job
from npuops.runtime.signature import Shape
from npuops.runtime.slots import Geometry, aligned
from npuops.runtime.worker_process import OpenOrder, WorkerProcess, raised

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
        buckets: the shapes that the artifacts take.
        fallback: used only as the model's fallback policy allows.
        inline: small runs may be computed in the server's own process.
        environment: of the worker.
    """

    name: str
    target: str
    artifacts: tuple[Path, ...]
    buckets: tuple[Bucket, ...]
    fallback: bool = False
    inline: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


class Run:
    """Requests that share a run, and where they lie."""

    __slots__ = ("bucket", "dispatched_us", "jobs", "number", "rows", "slot")

    def __init__(self, number: int, jobs: list[Job], rows: int, bucket: Bucket, slot: int, dispatched_us: int) -> None:
        self.number = number
        self.jobs = jobs
        self.rows = rows
        self.bucket = bucket
        self.slot = slot
        self.dispatched_us = dispatched_us


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
        curves: for each bucket, as measured when it was loaded.
        ready: it takes runs.
        pid: of the worker, or of the last one; 0 before the first.
    """

    def __init__(self, spec: DeviceSpec, geometry: Geometry, reports: Reports, *, batched: bool) -> None:
        """`start` brings it to life."""
        self.spec = spec
        self.geometry = geometry
        self.under_way: dict[int, Run] = {}
        self.curves: tuple[BatchCurve, ...] = ()
        self.ready = False
        self.pid = 0
        self._reports, self._batched = reports, batched
        self._free = list(range(geometry.slots))
        self._worker: WorkerProcess | None = None
        self._next = 0
        self._works: dict[tuple[object, ...], bytes] = {}
        self._answers: dict[bytes, tuple[Place, ...]] = {}

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
        self, worker: WorkerProcess, sizes: Sequence[Sequence[int]], budget_ms: float
    ) -> Mapping[str, float]:
        """Load, warm up and measure; gives the phases in seconds.

        Raises:
            NpuopsError: as the worker met it; the process is gone then.
        """
        order = OpenOrder(
            artifacts=self.spec.artifacts,
            geometry=self.geometry,
            sizes=tuple(tuple(rows) for rows in sizes),
            budget_ms=budget_ms,
            environment=self.spec.environment,
        )
        self._worker = worker
        self.pid = worker.pid
        self._free = list(range(self.geometry.slots))
        try:
            opened = await worker.open(order, self._hear, self._end)
        except (NpuopsError, asyncio.CancelledError):
            worker.kill()
            self._worker = None
            raise
        if any(opened.curves):  # a restart may skip the measurement: the old figures still hold
            self.curves = tuple(BatchCurve(tuple(points)) for points in opened.curves)
        self.ready = True
        return opened.phases

    def run(self, jobs: list[Job], rows: int, bucket: Bucket, now_us: int) -> bool:
        """Copy the inputs into a slot and ring; False where the worker is gone.

        Raises:
            TooLargeError: the inputs do not fit into a slot.
        """
        slot = self._free.pop()
        try:
            work = self._gather(jobs, rows, bucket, slot)
        except TooLargeError:
            self._free.append(slot)
            raise
        self._next = number = (self._next + 1) & 0xFFFFFFFF
        self.under_way[number] = Run(number, jobs, rows, bucket, slot, now_us)
        assert self._worker is not None  # noqa: S101 - `credits` is 0 otherwise
        return self._worker.send(doorbell.pack_run(number, work))

    def kill(self) -> None:
        """End the worker at once; `ended` is reported."""
        self.ready = False
        if self._worker is not None:
            self._worker.kill()

    async def stop(self) -> None:
        """End the worker; nothing must be under way."""
        self.ready = False
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.close()

    def _gather(self, jobs: list[Job], rows: int, bucket: Bucket, slot: int) -> bytes:
        """The inputs of all jobs, one after the other along axis 0, and zeros for the rows that nobody asked for."""
        base = slot * self.geometry.slot_bytes
        at, end = base, base + self.geometry.output_offset
        view = self.view
        padded = rows if bucket.rows is None else bucket.rows
        sizes: list[int] = []
        for index, size in enumerate(jobs[0].form.sizes):
            begin = at
            for job in jobs:
                part = job.parts[index]
                after = at + len(part)
                if after > end:
                    raise _too_large(jobs, self.geometry)
                view[at:after] = part
                at = after
            if padded > rows and size >= 0:
                fill = (at - begin) // rows * (padded - rows)
                view[at : at + fill] = bytes(fill)
                at += fill
            sizes.append(at - begin)
            at = aligned(at)
        key = (slot, bucket.index, jobs[0].form.key, padded, *sizes)
        work = self._works.get(key)
        if work is None:
            if len(self._works) >= _LAYOUTS_KEPT:
                self._works.clear()
            work = self._works[key] = self._pack(jobs[0].form.shapes, sizes, base, padded, bucket.index)
        return work

    def _pack(self, shapes: Sequence[Shape], sizes: Sequence[int], base: int, padded: int, index: int) -> bytes:
        places, at = [], base
        for shape, size in zip(shapes, sizes, strict=True):
            places.append(Place(at, size, (padded, *shape[1:]) if self._batched else shape))
            at = aligned(at + size)
        return doorbell.pack_work(index, places)

    def _hear(self, message: bytes) -> None:
        if message[0] == doorbell.FAILED:
            run = self.under_way.pop(doorbell.batch_of(message))
            told = doorbell.unpack_failed(message)
            self._free.append(run.slot)
            self._reports.failed(self, run, raised(told), told.lost)
            return
        number, started_us, computed_us, _, tensors = doorbell.unpack_ran(message)
        places = self._answers.get(tensors)
        if places is None:
            if len(self._answers) >= _LAYOUTS_KEPT:
                self._answers.clear()
            places = self._answers[tensors] = doorbell.unpack_places(tensors)
        run = self.under_way.pop(number)
        try:
            self._reports.ran(self, run, Answer(tensors, places, started_us, computed_us))
        finally:
            self._free.append(run.slot)

    def _end(self, why: str) -> None:
        self.ready = False
        self._worker = None
        runs = list(self.under_way.values())
        self.under_way.clear()
        self._reports.ended(self, runs, why)


def _too_large(jobs: list[Job], geometry: Geometry) -> TooLargeError:
    total = sum(len(part) for job in jobs for part in job.parts)
    return TooLargeError(
        f"the inputs have {total} bytes, a run takes {geometry.output_offset}",
        advice="send a smaller request, or raise max_request_bytes",
    )
