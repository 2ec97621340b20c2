"""The worker process: it holds one model version on one device, and runs what lies in shared memory.

Started as `python -m npuops.runtime.worker DESCRIPTOR [TARGET …]`, with a socket to the server as that descriptor. It
ends when the socket does, so no worker outlives its server; and all memory of a model goes back to the system with its
process.
"""

from __future__ import annotations

import ctypes
import importlib
import itertools
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.verification import verify_folder
from npuops.errors import IntegrityError, NpuopsError
from npuops.runtime import doorbell
from npuops.runtime.background import in_background
from npuops.runtime.doorbell import Place
from npuops.runtime.loaded_artifact import LoadedArtifact, measure_curve, warm_up
from npuops.runtime.outlet import Outlet
from npuops.runtime.slots import SharedMemory
from npuops.runtime.text_tensor import read_words
from npuops.targets.registry import open_target

_PARENT_DEATH_SIGNAL: Final = 1
_VIEWS_KEPT: Final = 512


class Worker:
    """The loop of the process."""

    def __init__(self, connection: socket.socket, likely: Sequence[str] = ()) -> None:
        """`connection` keeps message borders (`SOCK_SEQPACKET`); `likely`: targets that it will be asked for."""
        self._socket = connection
        self._likely = likely
        self._loaded: list[LoadedArtifact] = []
        self._memory: SharedMemory | None = None
        self._outlets: dict[int, Outlet] = {}
        self._views: dict[bytes, tuple[LoadedArtifact, dict[str, NDArray[Any]], int]] = {}
        self._slot_bytes = 1
        self._output_offset = 0

    def serve(self) -> None:
        """Until the server hangs up."""
        self._socket.send(bytes((doorbell.SPAWNED,)))
        self._prepare_for_any()
        message, descriptors, _, _ = socket.recv_fds(self._socket, doorbell.OPEN_BYTES, 1)
        if not message or not descriptors:
            return
        self.open(doorbell.unpack_json(message, doorbell.Open), descriptors[0])
        receive, send = self._socket.recv, self._socket.send
        while message := receive(doorbell.MESSAGE_BYTES):
            try:
                reply = self.run(message)
            except Exception as error:  # noqa: BLE001 - whatever a vendor's code raises is told; the server judges
                reply = doorbell.pack_failed(doorbell.batch_of(message), doorbell.told_of(error))
            send(reply)

    def open(self, order: doorbell.Open, descriptor: int) -> None:
        """Load, and tell how it went."""
        os.environ.update(order.environment)
        try:
            self._memory = SharedMemory(descriptor, order.segment_bytes)
            self._slot_bytes, self._output_offset = order.slot_bytes, order.output_offset
            opened = self.load(order)
        except Exception as error:  # noqa: BLE001 - as in `serve`
            self._socket.send(doorbell.pack_json(doorbell.REFUSED, doorbell.told_of(error)))
            return
        self._socket.send(doorbell.pack_json(doorbell.OPENED, opened))

    def load(self, order: doorbell.Open) -> doorbell.Opened:
        """Verify, open, warm up and measure every artifact.

        Raises:
            NpuopsError: one of them cannot be served here.
        """
        marks = [time.perf_counter()]
        with in_background() if order.background else nullcontext():
            warm = self._warmed(order, marks)
        curves = [
            measure_curve(loaded, sizes, order.budget_ms * 1000) if ready else []
            for loaded, sizes, ready in zip(self._loaded, order.sizes, warm, strict=True)
        ]
        marks.append(time.perf_counter())
        names = ("verify", "open", "warm_up", "measure")
        spent = [after - before for before, after in itertools.pairwise(marks)]
        return doorbell.Opened(curves=curves, phases=dict(zip(names, spent, strict=True)))

    def _warmed(self, order: doorbell.Open, marks: list[float]) -> list[bool]:
        """Verify, open and warm up; gives whether each could be, and adds the moments to `marks`."""
        artifacts = [verify_folder(Path(folder)) for folder in order.artifacts]
        for artifact, digest in zip(artifacts, order.digests or [""] * len(artifacts), strict=True):
            if digest not in {"", artifact.manifest.digest}:
                raise IntegrityError(f"{artifact.root} is another artifact than it was", advice="load the model anew")
        marks.append(time.perf_counter())
        self._loaded = [LoadedArtifact(artifact) for artifact in artifacts]
        marks.append(time.perf_counter())
        warm = [warm_up(loaded) for loaded in self._loaded]
        marks.append(time.perf_counter())
        return warm

    def run(self, message: bytes) -> bytes:
        """One run; gives the answer."""
        work = message[doorbell.RUN_HEAD_BYTES :]
        found = self._views.get(work)
        if found is None:
            found = self._prepare(work)
        loaded, feeds, slot = found
        started_us = time.perf_counter_ns() // 1000
        values = loaded.answer(feeds)
        computed_us = time.perf_counter_ns() // 1000
        outlet = self._outlet(slot)
        if not outlet.is_laid_out(values):
            loaded.check(values)
        tensors = outlet.put(values)
        copied_us = time.perf_counter_ns() // 1000
        return doorbell.pack_ran(doorbell.batch_of(message), started_us, computed_us, copied_us, tensors)

    def _prepare_for_any(self) -> None:
        """A process that nobody needs yet imports what it will: that is most of the time of a load."""
        waiting = select.poll()  # not `select`, which fails on a descriptor beyond 1023
        waiting.register(self._socket, select.POLLIN)
        if waiting.poll(0):
            return  # it is needed already, for a target that may be another one
        for target in self._likely:
            with suppress(NpuopsError, ImportError):  # who asks for it will be told
                open_target(target)
                importlib.import_module("onnxruntime")

    def _prepare(self, work: bytes) -> tuple[LoadedArtifact, dict[str, NDArray[Any]], int]:
        slot, index, places = doorbell.unpack_work(work)
        loaded = self._loaded[index]
        feeds = {
            tensor.name: self._array(dtype, place)
            for tensor, dtype, place in zip(loaded.inputs, loaded.dtypes, places, strict=True)
        }
        entry = (loaded, feeds, slot)
        if None not in loaded.dtypes:  # text is read anew for every run
            if len(self._views) >= _VIEWS_KEPT:
                self._views.clear()
            self._views[work] = entry
        return entry

    def _array(self, dtype: np.dtype[Any] | None, place: Place) -> NDArray[Any]:
        assert self._memory is not None  # noqa: S101 - set before any run
        data = self._memory.view[place.offset : place.offset + place.size]
        if dtype is None:
            return read_words(data, place.shape)
        return np.frombuffer(data, dtype).reshape(place.shape)

    def _outlet(self, slot: int) -> Outlet:
        outlet = self._outlets.get(slot)
        if outlet is None:
            assert self._memory is not None  # noqa: S101 - set before any run
            start = slot * self._slot_bytes
            outlet = Outlet(self._memory, start + self._output_offset, start + self._slot_bytes)
            self._outlets[slot] = outlet
        return outlet


def serve(make: type[Worker] = Worker) -> None:
    """Be a worker until the server hangs up; the arguments are the process's own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to answer: it drains first
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    with socket.socket(fileno=int(sys.argv[1])) as connection, suppress(BrokenPipeError, ConnectionResetError):
        make(connection, sys.argv[2:]).serve()  # a server that is gone is the end, whatever it was about to say


if __name__ == "__main__":
    serve()
