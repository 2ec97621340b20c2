"""Who opts in, as its user says it: processes, their descendants, cgroups, commands."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from npuops.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A process that fits one of these opts in, with all its threads.

    Attributes:
        pids: these.
        children_of: these, and whatever descends from them.
        cgroups: what is in one of these cgroups or below, of any hierarchy; paths as in /proc/PID/cgroup.
        commands: patterns (`redis-*`) for the name that the kernel knows, for the path it was started by, or for the
            last part of that.
    """

    pids: tuple[int, ...] = ()
    children_of: tuple[int, ...] = ()
    cgroups: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would select nobody, or the whole machine by mistake.

        Raises:
            OptionError: as it says.
        """
        for pid in (*self.pids, *self.children_of):
            if pid < 1:
                raise OptionError(f"{pid} is no process", advice="processes have numbers from 1")
        for path in self.cgroups:
            if not path.startswith("/") or path.strip("/") == "":
                raise OptionError(
                    f"cgroup {path!r} is not below the root", advice="give it as in /proc/PID/cgroup: /batch/builds"
                )
        for pattern in self.commands:
            if pattern.strip("*") == "":
                raise OptionError(f"the pattern {pattern!r} fits every command", advice="name what should opt in")

    def __bool__(self) -> bool:
        """Somebody may opt in."""
        return bool(self.pids or self.children_of or self.cgroups or self.commands)

    def has_cgroup(self, paths: tuple[str, ...]) -> bool:
        """One of these paths is in a cgroup that opted in."""
        return any(
            path == wanted.rstrip("/") or path.startswith(wanted.rstrip("/") + "/")
            for wanted in self.cgroups
            for path in paths
        )

    def has_command(self, command: str, started_as: str) -> bool:
        """`command` is the kernel's name of the process, `started_as` the first word of its command line."""
        names = {command, started_as, started_as.rpartition("/")[2]} - {""}
        return any(fnmatchcase(name, pattern) for pattern in self.commands for name in names)
