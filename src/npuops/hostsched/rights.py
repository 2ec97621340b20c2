"""What this process may take back: found out on a child of ours, not read off a list of capabilities.

Inside a container a process may list CAP_SYS_NICE and still not have it where it counts.
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from npuops.hostsched.attributes import LIMIT_OF_ZERO, Attributes
from npuops.hostsched.knobs import NotPermittedError, write_attributes

_NICE_OF_ALL = 40
_WAIT_FOR_EOF = "import sys; sys.stdin.read()"


@dataclass(frozen=True, slots=True)
class Rights:
    """What this process may do to tasks of its user.

    Attributes:
        may_raise: it may give back what it took, whatever RLIMIT_NICE says.
    """

    may_raise: bool

    def nice_limit(self, tid: int) -> int:
        """RLIMIT_NICE of a task, which the kernel asks for; 0 where it is not told."""
        try:
            soft, _ = resource.prlimit(tid, resource.RLIMIT_NICE)
        except (ProcessLookupError, PermissionError):
            return 0
        return _NICE_OF_ALL if soft == resource.RLIM_INFINITY else soft


def find_rights() -> Rights:
    """Try on a child of ours."""
    with throw_away_child() as pid:
        resource.prlimit(pid, resource.RLIMIT_NICE, (0, 0))
        write_attributes(pid, Attributes(nice=LIMIT_OF_ZERO - 1))
        try:
            write_attributes(pid, Attributes(nice=LIMIT_OF_ZERO - 2))
        except NotPermittedError:
            return Rights(may_raise=False)
        return Rights(may_raise=True)


@contextmanager
def throw_away_child() -> Iterator[int]:
    """A process that waits, in a session of its own, and is gone afterwards."""
    process = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-I", "-S", "-c", _WAIT_FOR_EOF], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield process.pid
    finally:
        process.kill()
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        process.wait()
