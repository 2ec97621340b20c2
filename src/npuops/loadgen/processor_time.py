"""What the load generator took of the processors, and how long it was ready to work and got none.

A client that is out of processor time makes a server look slow. Its own processor seconds tell that only on an idle
machine: beside a busy server it may be held up all the time at half a core.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorTime:
    """Of this process since its start.

    Attributes:
        cpu_s: processor seconds of all its threads.
        waited_s: the calling thread was ready to run and did not; None where the kernel does not count it.
    """

    cpu_s: float
    waited_s: float | None

    def since(self, before: ProcessorTime) -> ProcessorTime:
        """What came to it after an earlier reading in the same thread."""
        known = self.waited_s is not None and before.waited_s is not None
        waited_s = (self.waited_s or 0.0) - (before.waited_s or 0.0)
        return ProcessorTime(cpu_s=self.cpu_s - before.cpu_s, waited_s=waited_s if known else None)


def processor_time() -> ProcessorTime:
    """Read it now; call it in the thread that must not be held up."""
    try:
        ran_ns, waited_ns = (int(word) for word in _SCHEDSTAT.read_text(encoding="ascii").split()[:2])
    except (OSError, ValueError):
        ran_ns, waited_ns = 0, 0
    # A kernel that keeps no such figures shows zeros.
    return ProcessorTime(cpu_s=time.process_time(), waited_s=waited_ns / 1e9 if ran_ns else None)
