"""Where a worker puts the outputs of a slot's runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.errors import TooLargeError
from npuops.runtime import doorbell
from npuops.runtime.doorbell import Place
from npuops.runtime.slots import SharedMemory, aligned
from npuops.runtime.text_tensor import write_text


class Outlet:
    """The room for the outputs of one slot. Arrays over the memory are made once for each set of shapes."""

    def __init__(self, memory: SharedMemory, start: int, end: int) -> None:
        """The room from `start` to `end`, in bytes of the memory."""
        self._memory, self._start, self._end = memory, start, end
        self._shapes: tuple[tuple[int, ...], ...] = ()
        self._views: list[NDArray[Any]] = []
        self._packed = b""

    def is_laid_out(self, values: Sequence[NDArray[Any]]) -> bool:
        """Whether the outputs before these had the same shapes."""
        return bool(self._views) and tuple([value.shape for value in values]) == self._shapes

    def put(self, values: Sequence[NDArray[Any]]) -> bytes:
        """Copy the outputs there; gives their packed places.

        Raises:
            TooLargeError: they need more room.
        """
        if not self.is_laid_out(values):
            if any(value.dtype.kind in "OSU" for value in values):
                return self._put_text(values)
            self._lay_out(values)
        for view, value in zip(self._views, values, strict=True):
            np.copyto(view, value, casting="no")
        return self._packed

    def _lay_out(self, values: Sequence[NDArray[Any]]) -> None:
        shapes = tuple([value.shape for value in values])
        places = self._places([value.nbytes for value in values], shapes)
        self._views = [
            np.frombuffer(self._memory.view[place.offset : place.offset + place.size], value.dtype).reshape(value.shape)
            for place, value in zip(places, values, strict=True)
        ]
        self._shapes, self._packed = shapes, doorbell.pack_places(places)

    def _put_text(self, values: Sequence[NDArray[Any]]) -> bytes:
        self._views = []
        blocks = [write_text(value) if value.dtype.kind in "OSU" else value.tobytes() for value in values]
        places = self._places([len(block) for block in blocks], [value.shape for value in values])
        for place, block in zip(places, blocks, strict=True):
            self._memory.view[place.offset : place.offset + place.size] = block
        return doorbell.pack_places(places)

    def _places(self, sizes: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> list[Place]:
        places, at = [], self._start
        for size, shape in zip(sizes, shapes, strict=True):
            if at + size > self._end:
                raise TooLargeError(
                    f"the outputs need {sum(sizes)} bytes, the server keeps {self._end - self._start} for them",
                    advice="send a smaller request, or raise max_request_bytes",
                )
            places.append(Place(at, size, shape))
            at = min(aligned(at + size), self._end)
        return places
