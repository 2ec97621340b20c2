"""What a killed agent and a killed reaper left behind: found by their lease files, put back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from npuops.errors import IntegrityError, OptionError
from npuops.hostsched.applied import Denial
from npuops.hostsched.lease_file import PREFIX, SUFFIX, boot_id, read_lease_file, runtime_folder
from npuops.hostsched.process_stat import alive
from npuops.hostsched.reaper import locked
from npuops.hostsched.restoration import Restored, put_back
from npuops.hostsched.task_id import GroupId, TaskId


@dataclass(frozen=True, slots=True)
class Leftover:
    """One lease file.

    Attributes:
        path: of the file.
        agent: whose it is; None if the file cannot be read.
        alive: the agent lives: nothing was done.
        problem: why the file cannot be read; else empty.
        back: tasks and groups that have again what they had.
        theirs: somebody else set these meanwhile.
        failed: the kernel refuses; the file stays.
    """

    path: Path
    agent: TaskId | None
    alive: bool = False
    problem: str = ""
    back: tuple[TaskId | GroupId, ...] = ()
    theirs: tuple[Denial, ...] = ()
    failed: tuple[Denial, ...] = field(default=())


def restore_leftovers(folder: Path | None = None) -> tuple[Leftover, ...]:
    """Put back what agents of this user left that are dead, and remove their files.

    Raises:
        OptionError: `folder` is none.
        StorageError: there is no place for lease files.
    """
    if folder is not None and folder.exists() and not folder.is_dir():
        raise OptionError(f"{folder} is no folder", advice="name the one that the agent was told, with --leases")
    place = folder if folder is not None else runtime_folder()
    found = [_restore(path) for path in sorted(place.glob(f"{PREFIX}*{SUFFIX}"))]
    for path in place.glob(f"{PREFIX}*.new"):  # a file that was never finished: what holds is in the other one
        agent = _agent_of(path)
        if agent is not None and not alive(agent):
            path.unlink(missing_ok=True)
    return tuple(leftover for leftover in found if leftover is not None)


def _restore(path: Path) -> Leftover | None:
    try:
        record = read_lease_file(path)
        if record.boot == boot_id() and alive(record.agent):
            return Leftover(path, record.agent, alive=True)
        with locked(path) as mine:  # waits for a reaper that is at it
            if not mine:
                return None
            result = put_back(record.leases) if record.boot == boot_id() else Restored()
            if not result.failed:
                path.unlink(missing_ok=True)
    except FileNotFoundError:
        return None
    except IntegrityError as error:
        return Leftover(path, None, problem=f"{error.message}: {error.advice}")
    except OSError as error:
        return Leftover(path, None, problem=f"{path} cannot be read: {error.strerror}")
    return Leftover(
        path,
        record.agent,
        back=tuple(result.back),
        theirs=tuple(result.theirs),
        failed=tuple(result.failed),
    )


def _agent_of(path: Path) -> TaskId | None:
    pid, _, start = path.stem.removeprefix(PREFIX).partition("-")
    return TaskId(int(pid), int(start)) if pid.isdigit() and start.isdigit() else None
