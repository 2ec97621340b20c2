"""Triton's statistics extension: counts and durations for each model version, folded from the runtime's facts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from npuops.events import Event
from npuops.runtime.facts import BatchRan, ModelFact, RequestFailed, RequestShed
from npuops.runtime.version_facts import VersionChanged
from npuops.server.model_life import LifeEvent, ModelState

PENDING: Final = 128
"""Batches that wait to be folded: an append for each is all that the hot path pays."""

Version = tuple[str, str]
"""Model and version."""
_VERSION = attrgetter("model", "version")
_ARRIVED = attrgetter("arrived_us")
_NUMBERS = attrgetter("dispatched_us", "started_us", "computed_us", "answered_us", "rows")
_OF_REQUESTS: Final = 5
"""Durations of a batch's requests; as many as three more are the batch's own."""
_MAX_ROWS: Final = 1 << 31
_WIDTH: Final = 3 + _OF_REQUESTS + 3
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticDuration:
    """How often, and how long in total."""

    count: int = 0
    ns: int = 0


NOTHING: Final = StatisticDuration()


@dataclass(frozen=True, slots=True, kw_only=True)
class InferStatistics:
    """Of requests.

    Attributes:
        success: from arrival to answer.
        fail: refused, dropped, or answered with an error; how long they took is not known and counts as 0.
        queue: until the batch left the queue.
        compute_input: copying the inputs to the device.
        compute_infer: on the device.
        compute_output: copying the outputs back, and answering.
        cache_hit: none, as there is no response cache.
        cache_miss: none.
    """

    success: StatisticDuration = NOTHING
    fail: StatisticDuration = NOTHING
    queue: StatisticDuration = NOTHING
    compute_input: StatisticDuration = NOTHING
    compute_infer: StatisticDuration = NOTHING
    compute_output: StatisticDuration = NOTHING
    cache_hit: StatisticDuration = NOTHING
    cache_miss: StatisticDuration = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class InferBatchStatistics:
    """Of the executions with so many rows; counts are executions."""

    batch_size: int
    compute_input: StatisticDuration
    compute_infer: StatisticDuration
    compute_output: StatisticDuration


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatistics:
    """One model version. The names are the protocol's, in JSON and in gRPC.

    Attributes:
        last_inference: milliseconds since 1970; 0 before the first request.
        inference_count: rows that were answered.
        execution_count: batches that ran.
    """

    name: str
    version: str
    last_inference: int = 0
    inference_count: int = 0
    execution_count: int = 0
    inference_stats: InferStatistics = InferStatistics()
    batch_stats: tuple[InferBatchStatistics, ...] = ()


class _Sums:
    """Of one version, as `_columns`; `batches` are those of the executions with so many rows."""

    __slots__ = ("all", "batches", "failed", "last_us")

    def __init__(self) -> None:
        self.last_us = 0
        self.failed = 0
        self.all: Ints = np.zeros(_WIDTH, np.int64)
        self.batches: dict[int, Ints] = defaultdict(lambda: np.zeros(_WIDTH, np.int64))

    def add(self, size: int, row: Ints) -> None:
        self.all += row
        self.batches[size] += row


class Statistics:
    """An `Observer` that keeps the protocol's statistics, of each version since it was loaded.

    One that was unloaded and is loaded again begins anew; one that only rested goes on.

    Args:
        unix_offset_us: what to add to the engine's clock to get microseconds since 1970.
    """

    def __init__(self, unix_offset_us: int) -> None:
        self._unix_offset_us = unix_offset_us
        self._pending: list[BatchRan] = []
        self._sums: dict[Version, _Sums] = defaultdict(_Sums)
        self._unloaded: set[Version] = set()

    def __call__(self, event: Event) -> None:
        """Put a batch aside, count a failure, follow the versions' lives, leave everything else."""
        kind = type(event)
        if kind is BatchRan:
            self._pending.append(event)  # type: ignore[arg-type]  # mypy does not narrow by `type() is`
            if len(self._pending) >= PENDING:
                self._fold()
        elif kind is RequestShed or kind is RequestFailed:
            self._count_failure(event)  # type: ignore[arg-type]
        elif kind is VersionChanged:
            self._follow(event)  # type: ignore[arg-type]

    def of(self, versions: Iterable[Version]) -> tuple[ModelStatistics, ...]:
        """Statistics of these versions, in their order; zeros where nothing happened yet."""
        self._fold()
        return tuple(self._one(version) for version in versions)

    def document(self, model: str, version: str) -> dict[str, Any]:
        """One entry of `model_stats` in the JSON of `GET v2/models[/{model}[/versions/{version}]]/stats`."""
        document: dict[str, Any] = msgspec.to_builtins(self.of([(model, version)])[0])
        return document

    def _follow(self, change: VersionChanged) -> None:
        version = (change.model, change.version)
        if change.event == LifeEvent.LOAD and version in self._unloaded:
            self._fold()
            self._sums.pop(version, None)
        if change.event in {LifeEvent.CLOSED, LifeEvent.UNLOAD} and change.state == ModelState.UNAVAILABLE:
            self._unloaded.add(version)
        elif change.event in {LifeEvent.REST, LifeEvent.LOAD}:
            self._unloaded.discard(version)

    def _count_failure(self, event: ModelFact) -> None:
        self._sums[event.model, event.version].failed += 1

    def _fold(self) -> None:
        if not self._pending:
            return
        batches, self._pending = self._pending, []
        index: dict[Version, int] = {}
        owner = np.array([index.setdefault(name, len(index)) for name in map(_VERSION, batches)])
        names = list(index)
        columns = _columns(batches)
        groups, group_of = np.unique(owner * _MAX_ROWS + columns[1], return_inverse=True)
        sums = np.stack([np.bincount(group_of, weights=column) for column in columns], axis=1).astype(np.int64)
        for group, row in zip(groups.tolist(), sums, strict=True):
            number, size = divmod(group, _MAX_ROWS)
            self._sums[names[number]].add(size, row)
        # Of each version, the batch that ended last has the newest request, or one as good as it.
        for name, newest in {(batch.model, batch.version): batch for batch in batches}.items():
            self._sums[name].last_us = max((self._sums[name].last_us, *newest.arrived_us))

    def _one(self, version: Version) -> ModelStatistics:
        name, number = version
        sums = self._sums.get(version)
        if sums is None:
            return ModelStatistics(name=name, version=number)
        requests, rows, runs, *stages_us = sums.all.tolist()
        total, queue, dma_in, compute, dma_out = (
            StatisticDuration(count=requests, ns=us * 1000) for us in stages_us[:_OF_REQUESTS]
        )
        return ModelStatistics(
            name=name,
            version=number,
            last_inference=(sums.last_us + self._unix_offset_us) // 1000 if runs else 0,
            inference_count=rows,
            execution_count=runs,
            inference_stats=InferStatistics(
                success=total,
                fail=StatisticDuration(count=sums.failed),
                queue=queue,
                compute_input=dma_in,
                compute_infer=compute,
                compute_output=dma_out,
            ),
            batch_stats=tuple(_batch(size, found) for size, found in sorted(sums.batches.items())),
        )


def _columns(batches: list[BatchRan]) -> tuple[Ints, ...]:
    """Of each batch: requests, rows, 1; of its requests together, in us: total, queue, dma in, compute, dma out.

    The last three follow for the batch itself.
    """
    count = len(batches)
    arrivals = list(map(_ARRIVED, batches))
    requests = np.fromiter(map(len, arrivals), np.int64, count)
    arrived = np.fromiter(map(sum, arrivals), np.int64, count)
    numbers = np.fromiter(chain.from_iterable(map(_NUMBERS, batches)), np.int64, count * 5).reshape(count, 5)
    dispatched, started, computed, answered, rows = np.ascontiguousarray(numbers.T)
    of_batch = (started - dispatched, computed - started, answered - computed)
    total, queue = answered * requests - arrived, dispatched * requests - arrived
    return requests, rows, np.ones_like(rows), total, queue, *(us * requests for us in of_batch), *of_batch


def _batch(size: int, sums: Ints) -> InferBatchStatistics:
    runs, *stages_us = sums.tolist()[2:]
    dma_in, compute, dma_out = (StatisticDuration(count=runs, ns=us * 1000) for us in stages_us[_OF_REQUESTS:])
    return InferBatchStatistics(batch_size=size, compute_input=dma_in, compute_infer=compute, compute_output=dma_out)
