"""Work in the background: low priority while it lasts, and none of it afterwards."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from npuops.runtime.background import NICE
from npuops.runtime.worker_process import SparePool

SEEN = """
import os, threading
from pathlib import Path
from npuops.runtime.background import in_background

def seen():
    group = Path("/proc/self/autogroup")
    nices = {os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir("/proc/self/task")}
    words = group.read_text().split() if group.exists() else []
    return sorted(nices), words[-1] if words else "-"

print(*seen())
release = threading.Event()
try:
    with in_background():
        threading.Thread(target=release.wait).start()
        print(*seen())
        raise KeyError
except KeyError:
    print(*seen())
release.set()
"""


def told(*, session: bool, nice: int = 0) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SEEN],
        capture_output=True,
        text=True,
        check=True,
        start_new_session=session,
        preexec_fn=(lambda: os.nice(nice)) if nice else None,
    )
    return done.stdout.splitlines()


def test_a_process_is_in_the_background_only_within() -> None:
    before, within, after = told(session=True)
    assert before == after
    if within == before:
        pytest.skip("this host has neither autogroups nor the right to take a nice value back (CAP_SYS_NICE)")


def test_a_process_that_shares_its_session_leaves_the_others_alone() -> None:
    before, within, after = told(session=False)
    assert before.split()[-1] == within.split()[-1] == after.split()[-1]


@pytest.mark.parametrize("nice", [3, NICE])
def test_a_nice_value_that_somebody_set_stays(nice: int) -> None:
    before, within, after = told(session=False, nice=nice)
    assert before == within == after


def test_without_any_way_nothing_happens() -> None:
    if os.geteuid() != 0 or not Path("/usr/bin/setpriv").exists():
        pytest.skip("needs root and setpriv to drop CAP_SYS_NICE")
    done = subprocess.run(
        ["/usr/bin/setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice", sys.executable, "-c", SEEN],
        capture_output=True,
        text=True,
        check=True,
    )
    before, within, after = done.stdout.splitlines()
    assert before == within == after


def priority(pid: int) -> tuple[int, str]:
    """Nice value, and that of the autogroup: "-" without one, where the kernel's file is absent or empty."""
    group = Path(f"/proc/{pid}/autogroup")
    words = group.read_text().split() if group.exists() else []
    return os.getpriority(os.PRIO_PROCESS, pid), words[-1] if words else "-"


def test_a_spare_is_in_the_background_until_it_is_taken() -> None:
    async def main() -> tuple[tuple[int, str], tuple[int, str], tuple[int, str]]:
        pool = SparePool(asyncio.get_running_loop(), 1)
        (pid,) = pool.pids
        waiting = priority(pid)
        taken = pool.take()
        assert taken.pid == pid
        lowered = waiting[0] > os.getpriority(os.PRIO_PROCESS, 0) or waiting[1] == str(NICE)
        while lowered and priority(pid) == waiting:
            await asyncio.sleep(0.01)  # the kernel may put it off
        found = waiting, priority(pid), priority(os.getpid())
        await pool.close()
        taken.kill()
        await taken.ended()
        return found

    waiting, taken, ours = asyncio.run(main())
    assert taken[0] == ours[0]
    assert taken[1] in ("0", "-")
    if waiting == taken:
        pytest.skip("this host has neither autogroups nor the right to take a nice value back (CAP_SYS_NICE)")
    assert waiting[0] > ours[0] or waiting[1] == str(NICE)
