"""What a server's tree of processes holds, looked at again and again; and whether it grows.

Memory is judged by a straight line through its course, with the line's 95 % confidence: neighbouring readings are not
independent, so they are averaged in blocks first, and a model that is loaded now and not then is no leak, so the number
of processes is fitted along. A process that is killed now and then cannot show a leak in the sum: so the growth within
the processes of a kind is fitted too, each with a level of its own. What can be counted (processes, descriptors, shared
memory, files) is counted when all is at rest, before and after.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from server_process import ServerProcess, command_line

BLOCKS = 20
CONFIDENCE = 0.95
SETTLED_S = 30.0
"""A process that is younger is not looked at for its growth."""
KINDS = {r"npuops\.runtime\.worker": "worker", r"step_worker|step_process": "pictures", "keeper": "keeper"}
MORE = {"processes": 0, "front_fds": 0, "fds": 0, "threads": 8, "shared": 0, "shared_mib": 1, "files": 0}
"""What can be counted, and by how much it may be more at the end: a pool of threads fills up as it is used."""
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A tree at one instant."""

    at_s: float
    pss_mib: float
    """Proportional set: falls and rises with whoever else on this machine maps the same libraries."""
    kept_mib: float
    """Of it, what is no file: anonymous and shared memory. It is the tree's alone."""
    processes: int
    front_fds: int
    fds: int
    threads: int
    shared: int
    """Segments of shared memory that anybody of the tree has mapped, named or not."""
    shared_mib: float
    files: int
    """Below the folder for temporary files."""
    own_mib: Mapping[tuple[int, str], float]
    """(Process, kind) → anonymous memory: what nobody shares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """A line through readings; MiB an hour, and the ends of its confidence."""

    per_hour: float
    low: float
    high: float
    hours: float
    """Time that was fitted."""
    blocks: int

    @property
    def surely_grown_mib(self) -> float:
        """By the low end, over the time that was fitted."""
        return self.low * self.hours

    def __str__(self) -> str:
        return f"{self.per_hour:+.1f} MiB/h ({self.low:+.1f} to {self.high:+.1f})"


def look(server: ServerProcess, scratch: Path, at_s: float) -> Reading:
    """Read a tree; processes that end meanwhile are left out."""
    own: dict[tuple[int, str], float] = {}
    segments: dict[tuple[str, str], int] = {}
    pss = kept = 0.0
    fds = front_fds = threads = 0
    for pid in server.pids():
        with contextlib.suppress(OSError, ValueError):
            folder = Path(f"/proc/{pid}")
            memory = rollup(folder)
            kind = kind_of(pid, server)
            open_now = len(list((folder / "fd").iterdir()))
            threads += len(list((folder / "task").iterdir()))
            segments |= shared_segments(folder)
            pss += memory["Pss"]
            kept += memory["Pss_Anon"] + memory["Pss_Shmem"]
            own[pid, kind] = memory["Anonymous"]
            fds += open_now
            front_fds = open_now if kind == "front" else front_fds
    return Reading(
        at_s=at_s,
        pss_mib=pss,
        kept_mib=kept,
        processes=len(own),
        front_fds=front_fds,
        fds=fds,
        threads=threads,
        shared=len(segments),
        shared_mib=sum(segments.values()) / 2**20,
        files=sum(len(names) for _, _, names in os.walk(scratch)),
        own_mib=own,
    )


def kind_of(pid: int, server: ServerProcess) -> str:
    """What a process of the tree is there for."""
    if pid == server.pid:
        return "front"
    line = command_line(pid)
    return next((kind for pattern, kind in KINDS.items() if re.search(pattern, line)), "other")


def rollup(folder: Path) -> dict[str, float]:
    """MiB of a process by kind of memory."""
    found = {}
    for line in (folder / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) / 1024
    return found


def shared_segments(folder: Path) -> dict[tuple[str, str], int]:
    """(Device, inode) → bytes of what is mapped from memory files and /dev/shm."""
    found = {}
    for line in (folder / "maps").read_text().splitlines():
        if "/memfd:" in line or "/dev/shm/" in line:  # noqa: S108 - it is looked for, not used
            span, _, _, device, inode, *_ = line.split()
            low, _, high = span.partition("-")
            found[device, inode] = int(high, 16) - int(low, 16)
    return found


def fitted(readings: Sequence[Reading], name: str) -> Slope | None:
    """Memory of the tree (`kept_mib` or `pss_mib`) over time, its processes fitted along; None of too few readings."""
    if len(readings) < 2 * BLOCKS:
        return None
    table = np.array([(each.at_s / 3600, each.processes, each.shared_mib, getattr(each, name)) for each in readings])
    blocks = np.array([block.mean(axis=0) for block in np.array_split(table, BLOCKS)])
    return line_through(blocks[:, 0], blocks[:, 3], blocks[:, 1:3])


def fitted_within(readings: Sequence[Reading], kind: str) -> Slope | None:
    """The growth of a kind's anonymous memory, each process with its own level; None where nothing lived long."""
    courses: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for each in readings:
        for (pid, found), mib in each.own_mib.items():
            if found == kind:
                courses[pid].append((each.at_s, mib))
    begin = readings[0].at_s if readings else 0.0
    times, values, whose = [], [], []
    for number, course in enumerate(courses.values()):
        born = course[0][0]
        old = np.array([row for row in course if row[0] >= born + (SETTLED_S if born > begin else 0.0)])
        if len(old) < 6:
            continue
        for block in np.array_split(old, min(BLOCKS, len(old) // 3)):
            times.append(block[:, 0].mean() / 3600)
            values.append(block[:, 1].mean())
            whose.append(number)
    if len(times) < 8:
        return None
    levels = (np.array(whose)[:, None] == np.unique(whose)[None, 1:]).astype(float)
    return line_through(np.array(times), np.array(values), levels)


def line_through(hours: Matrix, values: Matrix, beside: Matrix) -> Slope | None:
    """Least squares of values on time and on what else explains them (a column each).

    The confidence is Student's, for residuals that are independent.
    """
    columns = beside[:, [index for index in range(beside.shape[1]) if np.ptp(beside[:, index]) > 0]]
    model = np.column_stack([np.ones_like(hours), hours - hours.mean(), columns])
    free = len(values) - np.linalg.matrix_rank(model)
    if free < 3:
        return None
    found, _, _, _ = np.linalg.lstsq(model, values, rcond=None)
    noise = float(np.sum((values - model @ found) ** 2)) / free
    error = float(np.sqrt(noise * np.linalg.pinv(model.T @ model)[1, 1]))
    width = float(stats.t.ppf(0.5 + CONFIDENCE / 2, free)) * error
    slope = float(found[1])
    return Slope(per_hour=slope, low=slope - width, high=slope + width, hours=float(np.ptp(hours)), blocks=len(values))


def left_over(before: Iterable[Reading], after: Iterable[Reading]) -> dict[str, str]:
    """What can be counted and is more than before, at rest both times; by the least of the readings."""
    before, after = list(before), list(after)
    found = {}
    for name, slack in MORE.items():
        first, last = (min(getattr(each, name) for each in readings) for readings in (before, after))
        if last > first + slack:
            found[name] = f"{first:g} before, {last:g} after"
    return found
