"""What one task did so far, from the kernel's words."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from npuops.hostsched.proc_files import Descriptors
from npuops.hostsched.task_counters import TaskCounters, switches, wants_to_run

STATUS = (
    b"Name:\tState:\tR\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t1\n"
    b"voluntary_ctxt_switches:\t123\nnonvoluntary_ctxt_switches:\t45\n"
)


def test_switches_are_found_whatever_stands_around_them() -> None:
    assert switches(STATUS) == (123, 45)
    assert switches(STATUS + b"x86_Thread_features:\t\n") == (123, 45)


def test_a_name_cannot_pass_for_a_state() -> None:
    assert not wants_to_run(STATUS)
    assert wants_to_run(b"Name:\tx\nState:\tR (running)\n")


def test_it_says_what_the_kernel_says_of_this_very_task() -> None:
    descriptors = Descriptors()
    with subprocess.Popen(("sleep", "600")) as process:
        task = TaskCounters(process.pid, process.pid, descriptors)
        folder = Path(f"/proc/{process.pid}/task/{process.pid}")
        while wants_to_run((folder / "status").read_bytes()):
            os.sched_yield()  # it is about to sleep, and counts until then
        assert task.look(0)
        assert task.look(1) is False
        expected = [*map(int, (folder / "schedstat").read_text().split()), *switches((folder / "status").read_bytes())]
        assert list(task.counters) == expected
        process.kill()
        process.wait()
        assert task.look(2) is None
        task.close()
    assert descriptors.kept == 0
