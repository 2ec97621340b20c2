"""Rows of arrays that follow tasks from frame to frame: tasks come, end, and change places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from npuops.hostsched.frame import Task, TaskId


class Roster:
    """Who is in which row."""

    def __init__(self) -> None:
        self._tasks: tuple[Task, ...] = ()
        self._ids: list[TaskId] = []

    def moved(self, tasks: Sequence[Task]) -> NDArray[np.intp] | None:
        """For each task the row it had before, -1 for a new one; None where nothing moved."""
        if tasks is self._tasks:
            return None
        ids = [task.id for task in tasks]
        self._tasks = tuple(tasks) if not isinstance(tasks, tuple) else tasks
        if ids == self._ids:
            return None
        old = {task: row for row, task in enumerate(self._ids)}
        self._ids = ids
        return np.array([old.get(task, -1) for task in ids], np.intp)
