"""A worker whose "device" does what the first number of an input says: it answers, refuses, hangs, dies or lies.

Everything around the device is the real thing: process, socket, shared memory. Started with `-m hostile_worker`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DeviceLostError, IntegrityError, RunError
from npuops.models.model import TensorInfo
from npuops.runtime import doorbell
from npuops.runtime.doorbell import Place
from npuops.runtime.loaded_artifact import LoadedArtifact
from npuops.runtime.worker import Worker, serve

COLUMNS = 4
FIRST_ORDER = 1_000_000
(
    KILL,
    EXIT,
    STOP,
    LOSE,
    REFUSE,
    RAISE,
    SHORT,
    STRANGER,
    OUTSIDE,
    ROWS,
    WORDY,
    DOUBLE,
    MISSING,
    TWICE,
    HANG_UP,
    LARGE,
    SLOW,
    KILL_ONCE,
    REFUSE_COMPANY,
) = (float(FIRST_ORDER + number) for number in range(19))

LOAD = "HOSTILE_LOAD"
"""Variable: `exit`, `kill`, `stop`, `refuse`, `words`, `nonsense`, `lost`, `fleeting`: what it does when it loads."""
FLAG = "HOSTILE_FLAG"
"""Variable: a file; `KILL_ONCE` obeys only while it is not there. Loading fails while `FLAG.down` is there."""
SLOW_S = 0.02


class Device:
    """`y = x + 1`, unless it is told otherwise."""

    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()

    def run(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        x = feeds["x"]
        for row in x[:, 0]:
            if row >= FIRST_ORDER:
                return self._obey(float(row), x)
        return {"y": x + 1}

    def close(self) -> None:
        """Nothing to give back."""

    def _obey(self, order: float, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        acts: dict[float, Callable[[], None]] = {
            KILL: lambda: os.kill(os.getpid(), signal.SIGKILL),
            KILL_ONCE: _kill_once,
            EXIT: lambda: os._exit(3),
            STOP: lambda: os.kill(os.getpid(), signal.SIGSTOP),
            SLOW: lambda: time.sleep(SLOW_S),
        }
        raises = {
            LOSE: DeviceLostError("the device fell off the bus"),
            REFUSE: RunError("not this one"),
            RAISE: ValueError("a vendor's own error"),
            WORDY: RunError("words " * 200_000 + "\ud800", advice="more " * 100_000),
        }
        if order in raises and (order != REFUSE_COMPANY or len(x) > 1):
            raise raises[order]
        if order == REFUSE_COMPANY and len(x) > 1:
            raise RunError("not in company")
        if order in acts:
            acts[order]()
        answers = {
            ROWS: {"y": np.zeros((len(x) + 1, COLUMNS), np.float32)},
            DOUBLE: {"y": x.astype(np.float64)},
            MISSING: {},
            LARGE: {"y": np.zeros((len(x), 1 << 20), np.float32)},
        }
        return answers.get(order, {"y": x + 1})


class Loaded(LoadedArtifact):
    """No files, no target."""

    def __init__(self) -> None:
        self.inputs = (TensorInfo(name="x", dtype="float32", shape=("n", COLUMNS)),)
        self.outputs = (TensorInfo(name="y", dtype="float32", shape=("n", COLUMNS)),)
        self.dtypes = self.answers = [np.dtype(np.float32)]
        self.session = Device()


class Hostile(Worker):
    """Lies about its answers, where the device cannot."""

    def load(self, order: doorbell.Open) -> doorbell.Opened:
        how = os.environ.get(LOAD, "")
        flag = os.environ.get(FLAG, "")
        if flag and Path(f"{flag}.down").exists():
            raise DeviceLostError("the device is off")
        if how == "refuse":
            raise IntegrityError("these files were touched")
        if how == "lost":
            raise DeviceLostError("no such device")
        if how == "words":
            raise RunError("words " * 200_000)
        if how == "exit":
            os._exit(7)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if how == "nonsense":
            self._socket.send(bytes((doorbell.OPENED,)) + b"{")
            time.sleep(60)
        if how == "fleeting":
            opened = doorbell.Opened(curves=[[] for _ in order.artifacts], phases={})
            self._socket.send(doorbell.pack_json(doorbell.OPENED, opened))
            os.kill(os.getpid(), signal.SIGKILL)
        self._loaded = [Loaded() for _ in order.artifacts]
        # Made up: eight rows cost as much as one, so whatever waits shares a run.
        return doorbell.Opened(curves=[[(rows, 100.0) for rows in sizes] for sizes in order.sizes], phases={})

    def run(self, message: bytes) -> bytes:
        reply = super().run(message)
        number = doorbell.batch_of(message)
        _, feeds, slot = self._views[message[doorbell.RUN_HEAD_BYTES :]]
        first = float(feeds["x"][0, 0]) if feeds["x"].size else 0.0
        if first == SHORT:
            return bytes((doorbell.RAN, 1, 2))
        if first == STRANGER:
            return doorbell.pack_ran(number + 77, 0, 0, 0, reply[doorbell.RAN_HEAD_BYTES :])
        if first == OUTSIDE:
            place = Place(((slot + 1) % 3) * self._slot_bytes + self._output_offset, 16, (len(feeds["x"]), COLUMNS))
            return doorbell.pack_ran(number, 0, 0, 0, doorbell.pack_places([place]))
        if first == TWICE:
            self._socket.send(reply)
        if first == HANG_UP:
            self._socket.close()
            time.sleep(60)
        return reply


def _kill_once() -> None:
    flag = Path(os.environ[FLAG])
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    serve(Hostile)
