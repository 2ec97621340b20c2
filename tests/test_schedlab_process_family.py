"""Who descends from a process, and how much CPU time they took."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from npuops.schedlab.process_family import family, family_cpu_us, living_cpu_ns, run_ns, threads

SPIN = "import subprocess, sys, time\n"
SPIN += "child = subprocess.Popen([sys.executable, '-c', 'while True: pass'])\n"
SPIN += "print(child.pid, flush=True)\ntime.sleep(60)"


def test_children_belong_to_a_family_and_their_cpu_time_to_its() -> None:
    process = subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert list(family(process.pid)) == [process.pid, child]
        while run_ns(child) < 50_000_000:
            time.sleep(0.01)
        assert living_cpu_ns(process.pid) >= run_ns(process.pid) + 50_000_000
        assert family_cpu_us(process.pid) >= 30_000
    finally:
        os.kill(child, signal.SIGKILL)
        process.kill()
        process.wait()
        process.stdout.close()


def test_who_has_ended_has_no_family_no_threads_and_no_time() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    gone = process.pid
    assert (list(family(gone)), threads(gone), run_ns(gone)) == ([], [], 0)
    assert (family_cpu_us(gone), living_cpu_ns(gone)) == (0, 0)
