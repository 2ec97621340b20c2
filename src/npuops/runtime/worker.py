"""The worker process: it holds one model version on one device, and runs what lies in shared memory.

Started as `python -m npuops.runtime.worker DESCRIPTOR`, with a socket to the server as that descriptor. It ends when
the socket does, so no worker outlives its server; and all memory of a model goes back to the system with its process.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import socket
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.manifest import Artifact
from npuops.artifacts.verification import verify_folder
from npuops.errors import DeviceError, NpuopsError, RunError, TooLargeError
from npuops.models.model import TensorInfo
from npuops.runtime import doorbell
from npuops.runtime.doorbell import Place
from npuops.runtime.slots import SharedMemory, aligned
from npuops.runtime.text_tensor import read_text, write_text
from npuops.targets.protocol import Session
from npuops.targets.registry import open_target

_PARENT_DEATH_SIGNAL: Final = 1
_VIEWS_KEPT: Final = 512
_REPEATS: Final = 5
_REPEAT_US: Final = 4_000


class LoadedArtifact:
    """One artifact on the device, and the arrays that lie where its runs find them."""

    def __init__(self, artifact: Artifact) -> None:
        """Open it on its target.

        Raises:
            NpuopsError: the target cannot.
        """
        runner = open_target(artifact.manifest.target).runner
        if runner is None:
            raise RunError(
                f"nothing on this machine runs an artifact for {artifact.manifest.target}",
                advice="serve one for another target; npuops targets says what runs here",
            )
        self.inputs: tuple[TensorInfo, ...] = artifact.manifest.inputs
        self.outputs: tuple[TensorInfo, ...] = artifact.manifest.outputs
        self.session: Session = runner.open(artifact)

    def zeros(self, rows: int) -> dict[str, NDArray[Any]]:
        """Inputs of that many rows; other free sizes are 1."""
        return {
            tensor.name: np.zeros(_filled(tensor, rows), dtype=object if tensor.dtype == "string" else tensor.dtype)
            for tensor in self.inputs
        }


class Outlet:
    """Where the outputs of one slot go. Arrays over the memory are made once for each set of shapes."""

    def __init__(self, memory: SharedMemory, start: int, end: int) -> None:
        """The room from `start` to `end`, in bytes of the memory."""
        self._memory, self._start, self._end = memory, start, end
        self._shapes: tuple[tuple[int, ...], ...] = ()
        self._views: list[NDArray[Any]] = []
        self._packed = b""

    def put(self, values: Sequence[NDArray[Any]]) -> bytes:
        """Copy the outputs there; gives their packed places.

        Raises:
            TooLargeError: they need more room.
        """
        shapes = tuple([value.shape for value in values])
        if not self._views or shapes != self._shapes:
            if any(value.dtype.kind in "OSU" for value in values):
                return self._put_text(values)
            self._lay_out(values, shapes)
        for view, value in zip(self._views, values, strict=True):
            np.copyto(view, value, casting="no")
        return self._packed

    def _lay_out(self, values: Sequence[NDArray[Any]], shapes: tuple[tuple[int, ...], ...]) -> None:
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
            at = aligned(at + size)
        return places


class Worker:
    """The loop of the process."""

    def __init__(self, connection: socket.socket) -> None:
        """`connection` keeps message borders (`SOCK_SEQPACKET`)."""
        self._socket = connection
        self._loaded: list[LoadedArtifact] = []
        self._memory: SharedMemory | None = None
        self._outlets: dict[int, Outlet] = {}
        self._views: dict[bytes, tuple[LoadedArtifact, dict[str, NDArray[Any]], int]] = {}
        self._slot_bytes = 1
        self._output_offset = 0

    def serve(self) -> None:
        """Until the server hangs up."""
        self._socket.send(bytes((doorbell.SPAWNED,)))
        message, descriptors, _, _ = socket.recv_fds(self._socket, doorbell.MESSAGE_BYTES, 1)
        if not message or not descriptors:
            return
        self._open(msgspec.json.decode(message[1:], type=doorbell.Open), descriptors[0])
        receive, send = self._socket.recv, self._socket.send
        while message := receive(doorbell.MESSAGE_BYTES):
            try:
                reply = self._run(message)
            except Exception as error:  # noqa: BLE001 - whatever a vendor's code raises is told; the server judges
                reply = doorbell.pack_failed(doorbell.batch_of(message), _told(error))
            send(reply)

    def _open(self, order: doorbell.Open, descriptor: int) -> None:
        os.environ.update(order.environment)
        try:
            self._memory = SharedMemory(descriptor, order.segment_bytes)
            self._slot_bytes, self._output_offset = order.slot_bytes, order.output_offset
            opened = self._load(order)
        except Exception as error:  # noqa: BLE001 - as in `serve`
            self._socket.send(doorbell.pack_json(doorbell.REFUSED, _told(error)))
            return
        self._socket.send(doorbell.pack_json(doorbell.OPENED, opened))

    def _load(self, order: doorbell.Open) -> doorbell.Opened:
        marks = [time.perf_counter()]
        artifacts = [verify_folder(Path(folder)) for folder in order.artifacts]
        marks.append(time.perf_counter())
        self._loaded = [LoadedArtifact(artifact) for artifact in artifacts]
        marks.append(time.perf_counter())
        warm = [_warm_up(loaded) for loaded in self._loaded]
        marks.append(time.perf_counter())
        curves = [
            measure_curve(loaded, sizes, order.budget_ms * 1000) if ready else []
            for loaded, sizes, ready in zip(self._loaded, order.sizes, warm, strict=True)
        ]
        marks.append(time.perf_counter())
        names = ("verify", "open", "warm_up", "measure")
        spent = [after - before for before, after in itertools.pairwise(marks)]
        return doorbell.Opened(curves=curves, phases=dict(zip(names, spent, strict=True)))

    def _run(self, message: bytes) -> bytes:
        work = message[doorbell.RUN_HEAD_BYTES :]
        found = self._views.get(work)
        if found is None:
            found = self._prepare(work)
        loaded, feeds, slot = found
        started_us = time.perf_counter_ns() // 1000
        outputs = loaded.session.run(feeds)
        computed_us = time.perf_counter_ns() // 1000
        tensors = self._outlet(slot).put([outputs[tensor.name] for tensor in loaded.outputs])
        copied_us = time.perf_counter_ns() // 1000
        return doorbell.pack_ran(doorbell.batch_of(message), started_us, computed_us, copied_us, tensors)

    def _prepare(self, work: bytes) -> tuple[LoadedArtifact, dict[str, NDArray[Any]], int]:
        index, places = doorbell.unpack_work(work)
        loaded = self._loaded[index]
        feeds = {tensor.name: self._array(tensor, place) for tensor, place in zip(loaded.inputs, places, strict=True)}
        entry = (loaded, feeds, places[0].offset // self._slot_bytes if places else 0)
        if not any(tensor.dtype == "string" for tensor in loaded.inputs):  # text is read anew for every run
            if len(self._views) >= _VIEWS_KEPT:
                self._views.clear()
            self._views[work] = entry
        return entry

    def _array(self, tensor: TensorInfo, place: Place) -> NDArray[Any]:
        assert self._memory is not None  # noqa: S101 - set before any run
        data = self._memory.view[place.offset : place.offset + place.size]
        if tensor.dtype == "string":
            return read_text(data, place.shape)
        return np.frombuffer(data, _dtype(tensor.dtype)).reshape(place.shape)

    def _outlet(self, slot: int) -> Outlet:
        outlet = self._outlets.get(slot)
        if outlet is None:
            assert self._memory is not None  # noqa: S101 - set before any run
            start = slot * self._slot_bytes
            outlet = Outlet(self._memory, start + self._output_offset, start + self._slot_bytes)
            self._outlets[slot] = outlet
        return outlet


def measure_curve(loaded: LoadedArtifact, sizes: Sequence[int], budget_us: float) -> list[tuple[int, float]]:
    """Median run times in microseconds for some numbers of rows, within a budget of time."""
    curve: list[tuple[int, float]] = []
    spent_us = 0.0
    for rows in sizes:
        feeds = loaded.zeros(rows)
        times: list[float] = []
        while len(times) < _REPEATS and (len(times) < 2 or sum(times) < _REPEAT_US * _REPEATS):
            begun = time.perf_counter_ns()
            loaded.session.run(feeds)
            times.append((time.perf_counter_ns() - begun) / 1000)
        # The first run of a size allocates, and is no sample.
        curve.append((rows, statistics.median(times[1:])))
        spent_us += sum(times)
        if spent_us + 2 * 2 * times[-1] > budget_us:
            break
    return curve


def _warm_up(loaded: LoadedArtifact) -> bool:
    """The first run costs more than any other. A model may refuse zeros of size 1: then its first request warms it."""
    try:
        loaded.session.run(loaded.zeros(1))
    except DeviceError:
        raise
    except NpuopsError:
        return False
    return True


def _filled(tensor: TensorInfo, rows: int) -> tuple[int, ...]:
    shape = tensor.shape or ()
    return tuple(dim if isinstance(dim, int) else (rows if axis == 0 else 1) for axis, dim in enumerate(shape))


def _dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes  # noqa: PLC0415 - few models need it

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _told(error: Exception) -> doorbell.Told:
    if isinstance(error, NpuopsError):
        return doorbell.Told(
            kind=type(error).__name__,
            message=error.message,
            advice=error.advice,
            lost=isinstance(error, DeviceError),
        )
    return doorbell.Told(kind=RunError.__name__, message=f"{type(error).__name__} in the worker: {error}")


def main() -> None:
    """Entry point of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to answer: it drains first
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    with socket.socket(fileno=int(sys.argv[1])) as connection, suppress(BrokenPipeError, ConnectionResetError):
        Worker(connection).serve()  # a server that is gone is the end, whatever the worker was about to say


if __name__ == "__main__":
    main()
