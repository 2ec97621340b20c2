"""The outputs of a run, cut into what each of its requests gets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from npuops.errors import NpuopsError
from npuops.runtime.doorbell import Place
from npuops.runtime.job import Completion, Job
from npuops.runtime.signature import Shape

_SHAPES_KEPT: Final = 1024
_log: Final = logging.getLogger(__name__)


class Delivery:
    """Hands out completions; remembers the shapes of answers, which are the same most of the time."""

    def __init__(self, *, batched: bool) -> None:
        """`batched`: axis 0 of each output counts rows."""
        self._batched = batched
        self._shapes: dict[tuple[bytes, int], tuple[Shape, ...]] = {}

    def hand_out(
        self,
        jobs: Sequence[Job],
        view: memoryview,
        places: tuple[Place, ...],
        tensors: bytes,
        device: str,
        *,
        fell_back: bool,
    ) -> None:
        """Call the receiver of every job that is still wanted.

        Args:
            jobs: in the order of their rows.
            view: the memory that `places` refer to.
            places: of the outputs of the whole run.
            tensors: the packed form of `places`.
            device: that ran it.
            fell_back: it is the fallback.
        """
        if len(jobs) == 1 and (not self._batched or not places or places[0].shape[0] == jobs[0].form.rows):
            whole = [view[place.offset : place.offset + place.size] for place in places]
            self._give(jobs[0], whole, self._shapes_of(places, tensors, jobs[0].form.rows), device, fell_back)
            return
        steps = [(place.offset, place.size // place.shape[0]) for place in places]
        row = 0
        for job in jobs:
            rows = job.form.rows
            if not job.cancelled:
                parts = [view[offset + row * step : offset + (row + rows) * step] for offset, step in steps]
                self._give(job, parts, self._shapes_of(places, tensors, rows), device, fell_back)
            row += rows

    def _shapes_of(self, places: tuple[Place, ...], tensors: bytes, rows: int) -> tuple[Shape, ...]:
        found = self._shapes.get((tensors, rows))
        if found is None:
            if len(self._shapes) >= _SHAPES_KEPT:
                self._shapes.clear()
            found = tuple((rows, *place.shape[1:]) if self._batched else place.shape for place in places)
            self._shapes[tensors, rows] = found
        return found

    def _give(
        self, job: Job, outputs: list[memoryview], shapes: tuple[Shape, ...], device: str, fell_back: bool
    ) -> None:
        if job.cancelled:
            return
        try:
            job.receiver(job, Completion(outputs, shapes, device, fell_back=fell_back))
        except Exception:  # noqa: BLE001 - see below
            # A receiver that fails is a defect in a front end; it must not take the answers of others with it.
            _log.exception("a receiver failed")


def refuse(job: Job, error: NpuopsError) -> None:
    """Give an error to the receiver of a job that is still wanted."""
    if job.cancelled:
        return
    try:
        job.receiver(job, error)
    except Exception:  # noqa: BLE001 - as in `Delivery`
        _log.exception("a receiver failed")
