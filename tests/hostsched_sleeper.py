"""A process that does nothing, and what is seen of it while it truly does nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from npuops.hostsched.task_counters import Counters, switches, wants_to_run

Seen = TypeVar("Seen")


class Sleeper:
    """Sleeps for ten minutes, once it has come that far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid
        self.folder = f"/proc/{process.pid}/task/{process.pid}"

    @property
    def told(self) -> tuple[bool, Counters]:
        """By the kernel: whether it wants to run, and its counters."""
        status = Path(self.folder, "status").read_bytes()
        run_ns, wait_ns, turns = map(int, Path(self.folder, "schedstat").read_text().split())
        return wants_to_run(status), (run_ns, wait_ns, turns, *switches(status))

    def undisturbed(self, look: Callable[[], Seen]) -> tuple[Seen, Counters]:
        """What a look gave while it neither ran nor wanted to, and its counters meanwhile.

        One look at its state would not do: it also sleeps on its way into its sleep, waiting for a page, and its state
        says that it sleeps before its last switch is counted.
        """
        while True:
            before = self.told
            seen = look()
            if before == self.told and not before[0]:
                return seen, before[1]

    def end(self) -> None:
        """Nothing is left of it: whatever reads of it fails."""
        self._process.kill()
        self._process.wait()


@contextmanager
def sleeper() -> Iterator[Sleeper]:
    with subprocess.Popen(("sleep", "600")) as process:
        try:
            yield Sleeper(process)
        finally:
            process.kill()
