"""What one task did so far, from the kernel's words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from hostsched_sleeper import sleeper
from npuops.hostsched.proc_files import Descriptors
from npuops.hostsched.task_counters import IDLE_EVERY_US, IDLE_US, TaskCounters, switches, wants_to_run

STATUS = (
    b"Name:\tState:\tR\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t1\n"
    b"voluntary_ctxt_switches:\t123\nnonvoluntary_ctxt_switches:\t45\n"
)


def test_switches_are_found_whatever_stands_around_them() -> None:
    assert switches(STATUS) == (123, 45)
    assert switches(STATUS + b"x86_Thread_features:\t\n") == (123, 45)


def test_one_whose_parent_has_not_noticed_its_end_is_gone_all_the_same() -> None:
    with sleeper() as one:
        task, now = TaskCounters(one.folder, Descriptors()), 0
        task.look(now)
        os.kill(one.pid, signal.SIGKILL)
        while task.look(now) is not None:  # nobody waits for it meanwhile
            now += 10_000
        task.close()


def test_a_name_cannot_pass_for_a_state() -> None:
    assert not wants_to_run(STATUS)
    assert wants_to_run(b"Name:\tx\nState:\tR (running)\n")


def test_it_says_what_the_kernel_says_of_this_very_task() -> None:
    descriptors = Descriptors()

    def two_looks() -> tuple[TaskCounters, list[bool | None]]:
        task = TaskCounters(one.folder, descriptors)
        looks = [task.look(0), task.look(1)]
        task.close()
        return task, looks

    with sleeper() as one:
        (task, looks), told = one.undisturbed(two_looks)
        assert looks == [True, False]
        assert task.counters == told
        one.end()
        assert task.look(2) is None
        task.close()
    assert descriptors.kept == 0


NAPS = """
import sys, time
for line in sys.stdin:
    for _ in range(300):
        time.sleep(0.001)
    print(flush=True)
"""


def test_what_was_taken_for_granted_of_short_turns_is_made_good_when_the_task_rests() -> None:
    descriptors = Descriptors()
    with subprocess.Popen((sys.executable, "-c", NAPS), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        task = TaskCounters(f"/proc/{process.pid}/task/{process.pid}", descriptors)
        status = Path(f"/proc/{process.pid}/task/{process.pid}/status")
        before = task.counters
        for _ in range(3):
            process.stdin.write(b"\n")
            process.stdin.flush()
            os.set_blocking(process.stdout.fileno(), False)
            while not process.stdout.read():
                task.look(time.monotonic_ns() // 1000)
                assert all(new >= old for new, old in zip(task.counters, before, strict=True))
                before = task.counters
        while (told := switches(status.read_bytes()))[1] > task.counters[4] or told[0] > task.counters[3]:
            task.look(time.monotonic_ns() // 1000)
        left, pushed = told
        assert task.counters[4] == pushed
        assert left <= task.counters[3] <= left + pushed, "only a turn that was pushed aside can count twice"
        process.kill()
        task.close()


def test_a_task_that_did_nothing_for_long_is_looked_at_less_often() -> None:
    descriptors = Descriptors()

    def three_looks() -> tuple[TaskCounters, list[bool | None]]:
        task = TaskCounters(one.folder, descriptors)
        return task, [task.look(0), task.look(1), task.look(IDLE_US + 1)]

    with sleeper() as one:
        (task, looks), _ = one.undisturbed(three_looks)
        assert looks == [True, False, False]
        one.end()
        assert task.look(IDLE_US + IDLE_EVERY_US) is False
        assert task.look(IDLE_US + 1 + IDLE_EVERY_US) is None
    descriptors.close()
