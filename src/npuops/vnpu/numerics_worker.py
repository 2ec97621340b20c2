"""Threads in which the host computes, so that the device goes on serving meanwhile."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from npuops.errors import NpuopsError, RunError
from npuops.vnpu.wake import Bell


@dataclass(frozen=True, slots=True)
class Finished:
    """What a task left: its value, or its error."""

    key: int
    value: Any
    error: NpuopsError | None


class NumericsWorker:
    """Runs tasks, and rings a bell after each."""

    def __init__(self) -> None:
        self.bell = Bell()
        self._pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="numerics")
        self._finished: deque[Finished] = deque()

    def start(self, key: int, task: Callable[[], Any]) -> None:
        """Run the task in a thread; `finished` gives its key later."""
        self._pool.submit(self._run, key, task)

    def finished(self) -> list[Finished]:
        """What has ended since the last call."""
        found = []
        while self._finished:
            found.append(self._finished.popleft())
        return found

    def close(self) -> None:
        """Start nothing more; what runs in ONNX Runtime cannot be stopped and ends with the process."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, key: int, task: Callable[[], Any]) -> None:
        self._finished.append(attempt(key, task))
        self.bell.ring()


def attempt(key: int, task: Callable[[], Any]) -> Finished:
    """Run a task here and now; whatever goes wrong in it is its answer."""
    try:
        return Finished(key, task(), None)
    except NpuopsError as error:
        return Finished(key, None, error)
    except Exception as error:  # noqa: BLE001 - the border to vendor code: everything must become an answer
        return Finished(key, None, RunError(f"the host runner failed: {type(error).__name__}: {error}"))
