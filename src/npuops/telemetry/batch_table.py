"""Many batches as columns, so that numpy folds them at once: a batch costs well under a microsecond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from npuops.runtime.facts import BatchRan

Ints = NDArray[np.int64]
SeriesName = tuple[str, str, str]
"""Model, version, device."""

_SERIES = attrgetter("model", "version", "device")
_ARRIVED = attrgetter("arrived_us")
_COLUMNS = (
    *("dispatched_us", "started_us", "computed_us", "answered_us", "rows", "padded_rows", "fell_back"),
    *("elements", "padded_elements"),
)
_NUMBERS = attrgetter(*_COLUMNS)
_TENANTS = attrgetter("tenants")


class SeriesIndex(dict[SeriesName, int]):
    """Model, version and device → a small number, the same for as long as the server runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[SeriesName] = []

    def __missing__(self, name: SeriesName) -> int:
        number = len(self.names)
        self.names.append(name)
        self[name] = number
        return number


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class BatchTable:
    """Batches in the order in which they ended, and their requests in the same order.

    Attributes:
        names: of the series, by number; grows as the server meets new ones.
        series: [batches] number of model, version and device.
        requests: [batches] that shared the batch.
        rows: [batches] of all its requests.
        padded_rows: [batches] computed for nothing.
        elements: [batches] of the inputs, as they came.
        padded_elements: [batches] that they were filled up with, along any axis.
        fell_back: [batches] 1 where the model's fallback ran it.
        dma_in_us: [batches] from leaving the queue to the beginning of the computation.
        compute_us: [batches] on the device.
        dma_out_us: [batches] from the end of the computation until the last request had its answer.
        answered_us: [batches] the moment of that, on the engine's clock.
        arrived_us: [requests] the moment it came, on the engine's clock.
        queue_us: [requests] until its batch left the queue.
        total_us: [requests] until its batch was answered.
        owner: [requests] its batch.
        tenants: [requests] whose it was.
        batches: what the columns were made of.
    """

    names: Sequence[SeriesName]
    series: Ints
    requests: Ints
    rows: Ints
    padded_rows: Ints
    elements: Ints
    padded_elements: Ints
    fell_back: Ints
    dma_in_us: Ints
    compute_us: Ints
    dma_out_us: Ints
    answered_us: Ints
    arrived_us: Ints
    queue_us: Ints
    total_us: Ints
    owner: Ints
    tenants: Sequence[str]
    batches: Sequence[BatchRan]


def table_of(batches: Sequence[BatchRan], index: SeriesIndex) -> BatchTable:
    """The columns of these batches; `index` learns the series that it does not know yet."""
    count = len(batches)
    arrivals = [_ARRIVED(batch) for batch in batches]
    requests = np.fromiter(map(len, arrivals), np.int64, count)
    arrived = np.fromiter(chain.from_iterable(arrivals), np.int64, int(requests.sum()))
    owner = np.repeat(np.arange(count), requests)
    width = len(_COLUMNS)
    numbers = np.fromiter(chain.from_iterable(map(_NUMBERS, batches)), np.int64, count * width).reshape(count, width)
    (
        dispatched, started, computed, answered, rows, padded_rows, fell_back, elements, padded_elements,
    ) = np.ascontiguousarray(numbers.T)  # fmt: skip
    return BatchTable(
        names=index.names,
        series=np.fromiter(map(index.__getitem__, map(_SERIES, batches)), np.int64, count),
        requests=requests,
        rows=rows,
        padded_rows=padded_rows,
        elements=elements,
        padded_elements=padded_elements,
        fell_back=fell_back,
        dma_in_us=started - dispatched,
        compute_us=computed - started,
        dma_out_us=answered - computed,
        answered_us=answered,
        arrived_us=arrived,
        queue_us=dispatched[owner] - arrived,
        total_us=answered[owner] - arrived,
        owner=owner,
        tenants=list(chain.from_iterable(map(_TENANTS, batches))),
        batches=batches,
    )
