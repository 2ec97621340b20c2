"""The one observer of telemetry: it puts facts aside and hands them on in bulk.

An append for each batch is all that the hot path pays; everything else happens once for hundreds of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Final, Protocol

from npuops.events import Event
from npuops.runtime.facts import BatchRan, RequestShed
from npuops.telemetry.batch_table import BatchTable, SeriesIndex, table_of

PENDING: Final = 128
"""Facts that wait at most: folding them takes 0.2 ms of the event loop; four times as many show in a p99."""

ShedKey = tuple[str, str, str, str]
"""Model, version, tenant, reason."""
_SHED = attrgetter("model", "version", "tenant", "reason")


class Folder(Protocol):
    """Turns facts into words for outside. All calls come from the thread of the event loop."""

    def fold_batches(self, table: BatchTable) -> None:
        """Take batches that ended."""
        ...

    def fold_sheds(self, sheds: Mapping[ShedKey, int]) -> None:
        """Take counts of requests that were not run."""
        ...

    def note(self, event: Event) -> None:
        """Take any other fact."""
        ...


class Intake:
    """An `Observer`; call `flush` before the folders are read."""

    def __init__(self, folders: Sequence[Folder]) -> None:
        self._folders = tuple(folders)
        self._index = SeriesIndex()
        self._batches: list[BatchRan] = []
        self._sheds: list[RequestShed] = []

    def __call__(self, event: Event) -> None:
        """Put a fact aside, or hand it on if it is a rare one."""
        kind = type(event)
        if kind is BatchRan:
            self._batches.append(event)  # type: ignore[arg-type]  # mypy does not narrow by `type() is`
            if len(self._batches) >= PENDING:
                self.flush()
        elif kind is RequestShed:
            self._sheds.append(event)  # type: ignore[arg-type]
            if len(self._sheds) >= PENDING:
                self.flush()
        else:
            for folder in self._folders:
                folder.note(event)

    def flush(self) -> None:
        """Fold everything that was put aside."""
        if self._batches:
            batches, self._batches = self._batches, []
            table = table_of(batches, self._index)
            for folder in self._folders:
                folder.fold_batches(table)
        if self._sheds:
            sheds, self._sheds = self._sheds, []
            counted = Counter(map(_SHED, sheds))
            for folder in self._folders:
                folder.fold_sheds(counted)
