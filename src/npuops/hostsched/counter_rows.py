"""Counters of all tasks that are watched, a row for each: read by our C in one call, or one by one in Python.

Both give the same. C has for each task what `TaskCounters` has, and its periods are those of `task_counters`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from npuops.hostsched import task_counters
from npuops.hostsched.frame import COUNTERS
from npuops.hostsched.look_library import FAILED, GONE, CHabits, CRow, Library
from npuops.hostsched.proc_files import FULL, Descriptors, KeptFile, unreadable
from npuops.hostsched.task_counters import TaskCounters

_POINTER: Final = ctypes.sizeof(ctypes.c_void_p)
_COUNTERS: Final = len(COUNTERS) * 8


class Counted(Protocol):
    """One task that is counted."""

    def close(self) -> None:
        """Give back its descriptors."""
        ...


class CounterRows(Protocol):
    """Counters of many."""

    @property
    def counters(self) -> NDArray[np.int64]:
        """Of the last look, int64 of shape (tasks, 5), columns as in `frame.COUNTERS`."""
        ...

    def open(self, folder: str, now_us: int) -> Counted | None:
        """Begin to count the thread of `/proc/PID/task/TID`; None when it ended.

        Raises:
            KnobError: it cannot be read.
        """
        ...

    def arrange(self, counted: Sequence[Any]) -> None:
        """These are the rows from now on, in this order."""
        ...

    def look(self, now_us: int) -> list[int]:
        """Bring `counters` up to date: rows of those that ended.

        Raises:
            KnobError: one cannot be read.
        """
        ...


def counter_rows(descriptors: Descriptors, library: Library | None) -> CounterRows:
    """By the library, or without."""
    return PythonRows(descriptors) if library is None else LibraryRows(descriptors, library)


class PythonRows:
    """Each task is asked by itself."""

    def __init__(self, descriptors: Descriptors) -> None:
        """Nobody is counted yet."""
        self._descriptors = descriptors
        self._rows: Sequence[TaskCounters] = ()
        self.counters = _counters([])

    def open(self, folder: str, now_us: int) -> TaskCounters | None:
        """As `CounterRows.open`."""
        made = TaskCounters(folder, self._descriptors)
        if made.look(now_us) is None:
            made.close()
            return None
        return made

    def arrange(self, counted: Sequence[TaskCounters]) -> None:
        """As `CounterRows.arrange`."""
        self._rows = counted
        self.counters = _counters([each.counters for each in counted])

    def look(self, now_us: int) -> list[int]:
        """As `CounterRows.look`."""
        gone: list[int] = []
        counters = self.counters
        for row, each in enumerate(self._rows):
            changed = each.look(now_us)
            if changed:
                counters[row] = each.counters
            elif changed is None:
                gone.append(row)
        return gone


class LibraryTask:
    """What the library keeps of one task, and the files that it reads."""

    __slots__ = ("_paths", "_runs", "_status", "raw")

    def __init__(self, folder: str, descriptors: Descriptors) -> None:
        """Nothing is read yet."""
        self._runs = KeptFile(f"{folder}/schedstat", descriptors)
        self._status = KeptFile(f"{folder}/status", descriptors)
        # The structure has their addresses only.
        self._paths = os.fsencode(self._runs.path), os.fsencode(self._status.path)
        self.raw = CRow(*self._paths)

    def hold(self) -> None:
        """Keep its files open where that is possible."""
        self._runs.hold()
        self._status.hold()

    def tell_descriptors(self) -> None:
        """To the library: those that are kept open now."""
        runs, status = self._runs.descriptor, self._status.descriptor
        self.raw.runs_fd = -1 if runs is None else runs
        self.raw.status_fd = -1 if status is None else status

    @property
    def path(self) -> str:
        """For people."""
        return self._runs.path

    def close(self) -> None:
        """Give back its descriptors."""
        self._runs.close()
        self._status.close()
        self.tell_descriptors()


class LibraryRows:
    """One call for all tasks."""

    def __init__(self, descriptors: Descriptors, library: Library) -> None:
        """Nobody is counted yet."""
        self._descriptors = descriptors
        self._library = library
        self._call = library.look
        self._habits = CHabits(
            state_us=task_counters.STATE_US,
            sure_us=task_counters.SURE_US,
            short_ns=task_counters.SHORT_NS,
            usual=task_counters.USUAL,
            idle_us=task_counters.IDLE_US,
            idle_every_us=task_counters.IDLE_EVERY_US,
            idle_state_us=task_counters.IDLE_STATE_US,
        )
        self._habits_at = ctypes.addressof(self._habits)
        self.arrange(())

    def open(self, folder: str, now_us: int) -> LibraryTask | None:
        """As `CounterRows.open`."""
        made = LibraryTask(folder, self._descriptors)
        made.hold()
        made.tell_descriptors()
        told = ctypes.c_uint8()
        row, counters = ctypes.c_void_p(ctypes.addressof(made.raw)), (ctypes.c_int64 * len(COUNTERS))()
        at = ctypes.addressof(row), ctypes.addressof(counters), ctypes.addressof(told)
        self._call(self._habits_at, at[0], 1, now_us, at[1], at[2])
        self._again(made, (made,), at, now_us)
        if told.value == GONE:
            made.close()
            return None
        return made

    def arrange(self, counted: Sequence[LibraryTask]) -> None:
        """As `CounterRows.arrange`."""
        self._tasks = counted
        self._rows = (ctypes.c_void_p * len(counted))(*(ctypes.addressof(each.raw) for each in counted))
        self._rows_at = ctypes.addressof(self._rows)
        self.counters = _counters([tuple(each.raw.counters) for each in counted])
        self._counters_at = self.counters.ctypes.data
        self._told = np.zeros(len(counted), np.uint8)
        self._told_at = self._told.ctypes.data
        self._held = -1

    def look(self, now_us: int) -> list[int]:
        """As `CounterRows.look`."""
        if self._held != self._descriptors.changes:
            self._hold()
        count = len(self._tasks)
        if not self._call(self._habits_at, self._rows_at, count, now_us, self._counters_at, self._told_at):
            return []
        for row in np.flatnonzero(self._told == FAILED).tolist():
            at = self._rows_at + row * _POINTER, self._counters_at + row * _COUNTERS, self._told_at + row
            self._again(self._tasks[row], self._tasks, at, now_us)
        return [int(row) for row in np.flatnonzero(self._told == GONE)]

    def _hold(self) -> None:
        """Files were opened or closed: of ours too, perhaps, so that a number may be another file's by now."""
        for task in self._tasks:
            task.hold()
        for task in self._tasks:  # by now: to open one may have closed another
            task.tell_descriptors()
        self._held = self._descriptors.changes

    def _again(self, task: LibraryTask, those: Sequence[LibraryTask], at: tuple[int, int, int], now_us: int) -> None:
        """What could not be read for want of a descriptor is read with one of those that are kept.

        Args:
            task: which.
            those: all that may have lost theirs by that.
            at: addresses of its row, of its counters and of what became of it.
            now_us: of the look.
        """
        told = ctypes.c_uint8.from_address(at[2])
        while told.value == FAILED:
            if task.raw.error not in FULL or not self._descriptors.make_room():
                raise unreadable(task.path, OSError(task.raw.error, os.strerror(task.raw.error)))
            for each in those:
                each.tell_descriptors()
            self._call(self._habits_at, at[0], 1, now_us, at[1], at[2])


def _counters(rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    return np.array(rows, np.int64).reshape(len(rows), len(COUNTERS))
