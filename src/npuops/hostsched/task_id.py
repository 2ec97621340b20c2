"""Who is meant: one thread, or one group of threads, however long the agent and its reaper talk of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class TaskId:
    """One thread, for good: the kernel gives its number to others after it ends, but not with the same start.

    Attributes:
        tid: the kernel's number.
        start_ticks: field 22 of /proc/TID/stat.
    """

    tid: int
    start_ticks: int

    def __hash__(self) -> int:
        """Of the number alone, which few share: an agent asks for thousands a second."""
        return self.tid


@dataclass(frozen=True, slots=True, order=True)
class GroupId:
    """Tasks that share as one: nice counts only among them.

    Attributes:
        kind: `autogroup`, `cgroup1` or `cgroup2`.
        name: number of the autogroup, or path of the cgroup.
    """

    kind: str
    name: str
