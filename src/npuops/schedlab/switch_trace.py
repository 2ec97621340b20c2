"""Who ran when in a play: all changes of task on its CPUs, all wake-ups and ticks; kernel and simulator alike."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.disk import storage_errors
from npuops.eevdf.setting import Setting
from npuops.errors import DataError

SCHEMA: Final = "npuops.hostsched.switches/1"
OTHERS: Final = -1
"""A task that is none of the play's."""
NOBODY: Final = -2
"""The CPU idles; or no task did it (an interrupt)."""
TIME, KIND, CPU, ONE, OTHER, STAYS, BOOKED = range(7)
COLUMNS: Final = 7
"""Columns of `SwitchTrace.events`."""

Events = NDArray[np.int64]


class Event(IntEnum):
    """What happened, in the column KIND."""

    SWITCH = 0
    """From ONE to OTHER; STAYS is 1 if ONE still wants the CPU; BOOKED is the CPU time (ns) that the kernel charged it
    for since it came, 0 if nobody knows: some microseconds more or less than passed, for it does not look at the clock
    at every change of task."""
    WAKE = 1
    """ONE wants a CPU and joins this one; OTHER woke it, by its own doing (a byte written), or NOBODY (a timer)."""
    TICK = 2
    """The CPU's timer interrupt."""


class Actor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A task of the play.

    Attributes:
        name: as in the mix.
        session: tasks of one session share an autogroup.
        setting: what the kernel was told about it.
        group_nice: nice value of its session.
        naps: it sleeps for spans, not until moments: who runs later wakes later.
    """

    name: str
    session: int
    setting: Setting
    group_nice: int
    naps: bool


class Play(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was played, and where.

    Attributes:
        mix: its name.
        treatment: name of the setting.
        seed: of its arrivals.
        actors: in the order of the mix.
        cpus: how many it had; events count them from 0.
        duration_ns: events are from 0 to here.
        inferred: events that the kernel hid; they are told from what it booked.
        base_slice_ns: of tasks without a slice of their own; 0 if nobody knows.
        kernel: release of the kernel, or "simulator".
        machine: in words.
        schema: of this document.
    """

    mix: str
    treatment: str
    seed: int
    actors: tuple[Actor, ...]
    cpus: int
    duration_ns: int
    inferred: int
    base_slice_ns: int
    kernel: str
    machine: str
    schema: str = SCHEMA


class SwitchTrace(msgspec.Struct, frozen=True, eq=False):
    """One play.

    Attributes:
        play: what it was.
        events: int64 of shape (events, 7), rising in time: TIME (ns), KIND, CPU, ONE, OTHER, STAYS, BOOKED. Players by
            number; changes between two tasks that are none of the play's are left out.
    """

    play: Play
    events: Events

    def of_kind(self, kind: Event) -> Events:
        """Events of this kind."""
        found: Events = self.events[self.events[:, KIND] == kind]
        return found

    def stretches(self) -> Events:
        """Who had which CPU from when to when: int64 of shape (stretches, 5): from, to, CPU, who, and at its end STAYS.

        `OTHERS` and `NOBODY` have theirs, too. The last of each CPU ends with the play, and stays.
        """
        found: list[tuple[int, int, int, int, int]] = []
        for cpu in range(self.play.cpus):
            begun, who = 0, NOBODY
            mine = self.events[(self.events[:, CPU] == cpu) & (self.events[:, KIND] == Event.SWITCH)]
            for moment, was, then, stays in mine[:, [TIME, ONE, OTHER, STAYS]].tolist():
                if moment > begun:
                    found.append((begun, moment, cpu, was, stays))
                begun, who = moment, then
            found.append((begun, self.play.duration_ns, cpu, who, 1))
        return np.array(sorted(found), np.int64).reshape(-1, 5)

    def waits(self, player: int) -> Events:
        """Each time that it wanted a CPU and had none: int64 of shape (waits, 3): from, to, and 1 if it had just woken.

        One that has not ended with the play is none.
        """
        found, since, woke = [], -1, 0
        for moment, kind, one, other, stays in self.events[:, [TIME, KIND, ONE, OTHER, STAYS]].tolist():
            if kind == Event.WAKE and one == player and since < 0:
                since, woke = moment, 1
            elif kind == Event.SWITCH and other == player and since >= 0:
                found.append((since, moment, woke))
                since = -1
            elif kind == Event.SWITCH and one == player:
                since, woke = (moment, 0) if stays else (-1, 0)
        return np.array(found, np.int64).reshape(-1, 3)

    def faults(self) -> Iterator[str]:
        """What no whole trace has: who leaves a CPU is not who came to it, time runs backwards, a player is nowhere."""
        if (np.diff(self.events[:, TIME]) < 0).any():
            yield "time runs backwards"
        running = [NOBODY] * self.play.cpus
        known = [False] * self.play.cpus
        for moment, kind, cpu, one, other in self.events[:, [TIME, KIND, CPU, ONE, OTHER]].tolist():
            if kind != Event.SWITCH:
                continue
            if known[cpu] and running[cpu] != one:
                yield f"at {moment} ns {self.name(one)} leaves CPU {cpu}, where {self.name(running[cpu])} was"
            if other >= 0 and other in running:
                yield f"at {moment} ns {self.name(other)} comes to CPU {cpu}, but runs already"
            running[cpu], known[cpu] = other, True

    def name(self, player: int) -> str:
        """For messages."""
        if player >= 0:
            return self.play.actors[player].name
        return "another task" if player == OTHERS else "nobody"


def write_trace(trace: SwitchTrace, path: Path) -> None:
    """Keep it in a file: a few bytes an event.

    Raises:
        StorageError: it cannot be written.
    """
    into = io.BytesIO()
    columns = trace.events.copy()
    columns[1:, TIME] = np.diff(trace.events[:, TIME])
    small = {f"c{place}": _shrunk(columns[:, place]) for place in range(columns.shape[1])}
    np.savez_compressed(
        into, play=np.frombuffer(msgspec.json.encode(trace.play), np.uint8), allow_pickle=False, **small
    )
    with storage_errors("write", path, need_bytes=into.tell()):
        path.write_bytes(into.getvalue())


def _shrunk(column: Events) -> NDArray[np.integer[Any]]:
    """In as few bytes as its figures take."""
    for kind in (np.int8, np.int32):
        if not len(column) or (column.min() >= np.iinfo(kind).min and column.max() <= np.iinfo(kind).max):
            return column.astype(kind)
    return column


def read_trace(path: Path) -> SwitchTrace:
    """What `write_trace` kept.

    Raises:
        DataError: it is none, cut off, or contradicts itself.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as found:
            columns = [_column(found, f"c{place}") for place in range(COLUMNS)]
            play = msgspec.json.decode(bytes(found["play"]), type=Play)
            events = np.stack(columns, axis=1)
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is no trace of switches: {error}") from error
    events[:, TIME] = np.cumsum(events[:, TIME])
    trace = SwitchTrace(play, events)
    players = events[:, [ONE, OTHER]]
    bounds = ((events[:, CPU], 0, play.cpus), (players, NOBODY, len(play.actors)), (events[:, KIND], 0, len(Event)))
    if any((values < low).any() or (values >= high).any() for values, low, high in bounds):
        raise DataError(f"{path} names CPUs, players or events that are not there")
    for fault in trace.faults():
        raise DataError(f"{path} contradicts itself: {fault}")
    return trace


def _column(found: np.lib.npyio.NpzFile, name: str) -> Events:
    column = np.asarray(found[name])
    if column.ndim != 1 or column.dtype.kind != "i":
        raise ValueError(f"{name} is no column of whole numbers")
    return column.astype(np.int64)
