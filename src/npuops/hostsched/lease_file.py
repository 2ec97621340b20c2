"""The journal of leases: written before a change, read by whoever must put things back when its writer is dead.

A line each, with its checksum. A line counts when it is whole: the writer may be killed at any byte. It lies on a
file system in memory: a boot takes the file away, as it takes away what was set.
"""

from __future__ import annotations

import json
import os
import stat
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from npuops.errors import IntegrityError, StorageError
from npuops.hostsched.attributes import Attributes
from npuops.hostsched.leases import GroupLease, Leases, TaskLease
from npuops.hostsched.task_id import GroupId, TaskId

VERSION: Final = 1
PREFIX: Final = "hostsched-"
SUFFIX: Final = ".leases"
_HEADER: Final = [str, int, int, int, str]
_COMPACT_AT: Final = 256 * 1024
_MOST_BYTES: Final = 64 * 1024 * 1024
# `dataclasses.astuple` copies to the bottom: it was a third of what a change costs.
_of_task: Final = attrgetter(*(field.name for field in fields(TaskId)))
_of_group: Final = attrgetter(*(field.name for field in fields(GroupId)))
_of_attributes: Final = attrgetter(*(field.name for field in fields(Attributes)))


@dataclass(frozen=True, slots=True)
class TaskClaimed:
    """This task is about to be changed for the first time."""

    lease: TaskLease


@dataclass(frozen=True, slots=True)
class GroupClaimed:
    """This group is about to be changed for the first time."""

    lease: GroupLease


@dataclass(frozen=True, slots=True)
class Given:
    """A task or group is about to be set to this."""

    what: TaskId | GroupId
    value: Attributes | int


@dataclass(frozen=True, slots=True)
class LetGo:
    """Nothing is to be put back any more."""

    what: TaskId | GroupId


Entry = TaskClaimed | GroupClaimed | Given | LetGo


@dataclass(frozen=True, slots=True)
class Record:
    """What a lease file says.

    Attributes:
        agent: whose it is.
        boot: id of the boot in which it was written.
        leases: what is to be put back.
        torn: its end was cut off: the writer died while writing, before it changed anything of that.
    """

    agent: TaskId
    boot: str
    leases: Leases
    torn: bool


def runtime_folder() -> Path:
    """Where lease files are: one place for each user, root's the same in a login session and in a service.

    Raises:
        StorageError: it cannot be made, or others may write there.
    """
    user = os.geteuid()
    given = os.environ.get("XDG_RUNTIME_DIR")
    own = Path(given, "npuops") if given else Path(f"/tmp/npuops-{user}")  # noqa: S108 - checked below
    folder = Path("/run/npuops") if user == 0 else own
    try:
        folder.mkdir(mode=0o755 if user == 0 else 0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be made: {error.strerror}", advice="set XDG_RUNTIME_DIR to a folder of this user"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & 0o022:
        raise StorageError(f"others may write to {folder}", advice="remove it, or set XDG_RUNTIME_DIR")
    return folder


def boot_id() -> str:
    """Of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class LeaseFile:
    """The writer's side: an agent's, for as long as it lives."""

    def __init__(self, folder: Path, agent: TaskId, *, compact_at: int = _COMPACT_AT) -> None:
        """Begin an empty file.

        Raises:
            StorageError: it cannot be written.
        """
        self.path = folder / f"{PREFIX}{agent.tid}-{agent.start_ticks}{SUFFIX}"
        self.leases = Leases()
        self._header = _line(["leases", VERSION, *_of_task(agent), boot_id()])
        self._compact_at = compact_at
        self._descriptor = -1
        self._bytes = 0
        self.rewrite()

    def note(self, entries: Sequence[Entry]) -> None:
        """Write down, all or nothing, what is about to be done.

        Raises:
            StorageError: nothing is noted; then nothing may be done.
        """
        if not entries:
            return
        self._append(b"".join(_line(_row(entry)) for entry in entries))
        for entry in entries:
            _enter(self.leases, entry)
        if self._bytes > self._compact_at:
            self._compact()

    def remove(self) -> None:
        """There is nothing to put back any more."""
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Leave it to others."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError as error:
            os.ftruncate(self._descriptor, self._bytes)  # a line that is not whole would hide those after it
            raise StorageError(
                f"{self.path} cannot be written: {error.strerror}", advice="make room there; nothing was changed"
            ) from error
        self._bytes += len(data)

    def _compact(self) -> None:
        try:
            self.rewrite()
        except StorageError:  # the old file is whole and goes on growing; at double the size we try again
            self._compact_at *= 2
        else:
            self._compact_at = max(self._compact_at, 2 * self._bytes)

    def rewrite(self) -> None:
        """What holds now into a new file, which then takes the place of the old one.

        Raises:
            StorageError: it cannot be written; the old one still holds.
        """
        rows = [_row(entry) for entry in _entries(self.leases)]
        data = self._header + b"".join(_line(row) for row in rows)
        fresh = self.path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(fresh, flags, 0o600)
            try:
                written = 0
                while written < len(data):
                    written += os.write(descriptor, data[written:])
                fresh.replace(self.path)
            except OSError:
                os.close(descriptor)
                fresh.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be written: {error.strerror}", advice="make room there, or check its permissions"
            ) from error
        self.close()
        self._descriptor, self._bytes = descriptor, len(data)


def read_lease_file(path: Path) -> Record:
    """What is to be put back by it.

    Raises:
        FileNotFoundError: there is none.
        IntegrityError: it is not a lease file of this user, or of this version of npuops.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise IntegrityError(f"{path} is not a file of this user", advice="remove it")
        if found.st_size > _MOST_BYTES:
            raise IntegrityError(f"{path} has {found.st_size} bytes, too many for a lease file", advice="remove it")
        data = file.read(_MOST_BYTES)
    first, *rows = (_parsed(line) for line in data.split(b"\n")[:-1] or [b""])
    if first is None or [type(word) for word in first] != _HEADER or first[0] != "leases":
        raise IntegrityError(f"{path} is not a lease file", advice="remove it")
    if first[1] != VERSION:
        raise IntegrityError(
            f"{path} is of version {first[1]}, this npuops reads {VERSION}", advice="use the other one"
        )
    leases, torn = Leases(), not data.endswith(b"\n")
    for row in rows:
        if row is None:
            torn = True
            break
        try:
            _enter(leases, _entry(row))
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise IntegrityError(f"{path} says what npuops never writes: {row}", advice="remove it") from error
    return Record(TaskId(first[2], first[3]), first[4], leases, torn)


def _line(row: list[Any]) -> bytes:
    text = json.dumps(row, separators=(",", ":")).encode("ascii")
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _parsed(line: bytes) -> list[Any] | None:
    """None unless the line is whole."""
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        row = json.loads(text)
    except ValueError:
        return None
    return row if isinstance(row, list) else None


def _entries(leases: Leases) -> list[Entry]:
    claims: list[Entry] = [TaskClaimed(lease) for lease in leases.tasks.values()]
    return claims + [GroupClaimed(lease) for lease in leases.groups.values()]


def _row(entry: Entry) -> list[Any]:
    match entry:
        case TaskClaimed(lease):
            given = [_of_attributes(value) for value in lease.given]
            born = (*_of_task(lease.process), lease.session, lease.since_ticks)
            return ["task", _of_task(lease.id), born, _of_attributes(lease.original), lease.slack_ns, given]
        case GroupClaimed(lease):
            return ["group", _of_group(lease.id), lease.original, lease.given]
        case Given(what, value):
            return ["given", _of(what), _of_attributes(value) if isinstance(value, Attributes) else value]
        case LetGo(what):
            return ["let go", _of(what)]


def _of(what: TaskId | GroupId) -> tuple[Any, ...]:
    return _of_task(what) if isinstance(what, TaskId) else _of_group(what)


def _entry(row: list[Any]) -> Entry:
    match row:
        case [
            "task",
            [int(tid), int(start)],
            [int(pid), int(began), int(session), int(since)],
            original,
            int(slack),
            given,
        ]:
            return TaskClaimed(
                TaskLease(
                    id=TaskId(tid, start),
                    process=TaskId(pid, began),
                    session=session,
                    since_ticks=since,
                    original=_attributes(original),
                    slack_ns=slack,
                    given=[_attributes(value) for value in given],
                )
            )
        case ["group", [str(kind), str(name)], int(original), [*given]]:
            return GroupClaimed(GroupLease(GroupId(kind, name), original, [int(value) for value in given]))
        case ["given", what, int(value)]:
            return Given(_what(what), value)
        case ["given", what, [*values]]:
            return Given(_what(what), _attributes(values))
        case ["let go", what]:
            return LetGo(_what(what))
    raise ValueError(row)


def _attributes(values: list[Any]) -> Attributes:
    return Attributes(*(int(value) for value in values))


def _what(pair: list[Any]) -> TaskId | GroupId:
    match pair:
        case [int(tid), int(start)]:
            return TaskId(tid, start)
        case [str(kind), str(name)]:
            return GroupId(kind, name)
    raise ValueError(pair)


def _enter(leases: Leases, entry: Entry) -> None:
    match entry:
        case TaskClaimed(lease):
            leases.tasks[lease.id] = lease
        case GroupClaimed(lease):
            leases.groups[lease.id] = lease
        case Given(TaskId() as task, Attributes() as value):
            given = leases.tasks[task].given
            if value not in given:
                given.append(value)
        case Given(GroupId() as group, int(native)):
            natives = leases.groups[group].given
            if native not in natives:
                natives.append(native)
        case LetGo(TaskId() as task):
            leases.tasks.pop(task, None)
        case LetGo(GroupId() as group):
            leases.groups.pop(group, None)
        case _:
            raise ValueError(entry)
