"""One look at the host: who is there, what they did so far, what they are set to, and what they told us."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.eevdf.setting import Setting
from npuops.hostsched.hint import Hint
from npuops.hostsched.task_id import GroupId, TaskId

__all__ = [
    "COUNTERS",
    "INVOLUNTARY",
    "RUN_NS",
    "TURNS",
    "VOLUNTARY",
    "WAIT_NS",
    "Frame",
    "GroupId",
    "Host",
    "Task",
    "TaskId",
]

RUN_NS, WAIT_NS, TURNS, VOLUNTARY, INVOLUNTARY = range(5)
COUNTERS: Final = ("run_ns", "wait_ns", "turns", "voluntary", "involuntary")
"""Columns of `Frame.counters`, all since the task began. The kernel books a wait only when the task runs next."""


@dataclass(frozen=True, slots=True)
class Task:
    """What seldom changes about a task.

    Attributes:
        id: the thread.
        pid: its process.
        command: `comm` of the thread.
        group: whom it shares with; None where the kernel makes no groups.
        cpus: on how many CPUs it may run.
    """

    id: TaskId
    pid: int
    command: str
    group: GroupId | None
    cpus: int


@dataclass(frozen=True, slots=True)
class Host:
    """The machine as a whole; counters since boot.

    Attributes:
        cpus: online.
        runnable: tasks that run or want to, now.
        busy_us: of all CPUs.
        steal_us: taken by the hypervisor, of all CPUs.
        pressure_us: time in which some task waited for a CPU (PSI); None where the kernel has none.
    """

    cpus: int
    runnable: int
    busy_us: int
    steal_us: int
    pressure_us: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One look.

    Attributes:
        at_us: monotonic.
        tasks: those that opted in, in an order that lasts while they do.
        counters: int64 of shape (tasks, 5), columns as in `COUNTERS`.
        settings: what each is set to.
        hints: what its application last said of it, or None.
        group_nices: nice of each autogroup or cgroup whose tasks all opted in: those may be set; the rest may not.
        host: the machine.
    """

    at_us: int
    tasks: tuple[Task, ...]
    counters: NDArray[np.int64]
    settings: tuple[Setting, ...]
    hints: tuple[Hint | None, ...]
    group_nices: dict[GroupId, int]
    host: Host

    @property
    def cpus(self) -> int:
        """That these tasks may share: those of the host, unless all of them are pinned to fewer."""
        return min(max((task.cpus for task in self.tasks), default=self.host.cpus), self.host.cpus)
