"""Who has a reservation now, and whether that explains that the kernel grants no more.

Linux 6.18 loses what it has promised: CPU time booked for a task that left its reservation while it slept stays
booked, and no list of tasks shows it (docs/decisions/0013).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from npuops.eevdf.setting import SchedPolicy
from npuops.hostsched.knobs import KnobError, read_attributes
from npuops.hostsched.process_stat import processes, threads

_KERNEL: Final = Path("/proc/sys/kernel")
_USUAL: Final = 0.95
_FAIR_SERVER: Final = 0.05
"""Of each CPU, which the kernel promises to the fair tasks themselves (`dl_server`, 50 ms of each second)."""
_BALANCE: Final = Path("/sys/fs/cgroup/cpuset/cpuset.sched_load_balance")


@dataclass(frozen=True, slots=True)
class Promised:
    """What is reserved, as far as this process is shown the tasks of others.

    Attributes:
        tasks: with a reservation.
        cpus: of all these together.
    """

    tasks: int
    cpus: float

    def refusal(self, asked_cpus: float, most_cpus: float) -> str:
        """Why the kernel does not grant so many CPUs more, and what to do about it."""
        found = f"{self.tasks} tasks have {self.cpus:.2f} of {most_cpus:.2f} CPUs"
        if self.cpus + asked_cpus > most_cpus:
            return f"{found} that may be reserved"
        return f"{found} that may be reserved, so the kernel counts some that left theirs; {_cure()}"


def promised() -> Promised:
    """Ask the kernel about every thread."""
    found = [share for pid in processes() for tid in threads(pid) if (share := _share(tid))]
    return Promised(len(found), sum(found))


def most_cpus() -> float:
    """That may be reserved by tasks in all. To read it makes Linux 6.18 count anew what is (`sched_rt_handler`)."""
    try:
        runtime, period = (int((_KERNEL / f"sched_rt_{name}_us").read_text("ascii")) for name in ("runtime", "period"))
    except (OSError, ValueError):
        share = _USUAL
    else:
        share = runtime / period if 0 <= runtime <= period else 1.0
    return max(share - _FAIR_SERVER, 0.0) * (os.cpu_count() or 1)


def _share(tid: int) -> float:
    try:
        if os.sched_getscheduler(tid) & ~os.SCHED_RESET_ON_FORK != SchedPolicy.DEADLINE:
            return 0.0
        present = read_attributes(tid)
    except (OSError, KnobError):  # it ended, or is not shown
        return 0.0
    return present.runtime_ns / present.period_ns if present.reserved and present.period_ns else 0.0


def _cure() -> str:
    if _BALANCE.exists():
        return f"as root, `echo 0 > {_BALANCE}; echo 1 > {_BALANCE}` makes it count anew"
    return "it counts anew when scheduling domains are built anew (a CPU off and on, a cpuset), or at the next start"
