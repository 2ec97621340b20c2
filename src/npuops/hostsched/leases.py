"""What npuops changed and must put back: of each task and group what it had, and what we gave it since."""

from __future__ import annotations

from dataclasses import dataclass, field

from npuops.hostsched.attributes import Attributes
from npuops.hostsched.task_id import GroupId, TaskId


@dataclass(slots=True)
class TaskLease:
    """One task.

    Attributes:
        id: the thread.
        process: its process: the number, and when that began.
        session: of the process.
        since_ticks: when we were about to change it first, in ticks since boot.
        original: what it had.
        slack_ns: its timer slack, which the kernel resets for a reservation; 0 where it could not be read.
        given: everything that we set it to, or were about to, oldest first.
    """

    id: TaskId
    process: TaskId
    session: int
    since_ticks: int
    original: Attributes
    slack_ns: int = 0
    given: list[Attributes] = field(default_factory=list)


@dataclass(slots=True)
class GroupLease:
    """One autogroup or cgroup; values as in `group_knobs`.

    Attributes:
        id: the group.
        original: what it had.
        given: everything that we set it to, or were about to, oldest first.
    """

    id: GroupId
    original: int
    given: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Leases:
    """All of an agent."""

    tasks: dict[TaskId, TaskLease] = field(default_factory=dict)
    groups: dict[GroupId, GroupLease] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """There is something to put back."""
        return bool(self.tasks or self.groups)
