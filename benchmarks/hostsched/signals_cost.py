"""What looking costs: CPU time of one look, of the features, and of the trace, by tasks and by what they do.

    .venv/bin/python benchmarks/hostsched/signals_cost.py [--seconds 5] [--rates 10,50,100]

For each load (all asleep, all chatty, a few spinners) so many threads of a child are looked at, at a fixed rate, by a
thread that does nothing else; its CPU time (not the time on the clock) is divided by the time that passed. The child's
load is not in it, but takes the caches: run it on a quiet machine, and with nothing else on these CPUs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from npuops.clock import SystemClock
from npuops.hostsched.features import Features
from npuops.hostsched.membership import Membership
from npuops.hostsched.selection import Selection
from npuops.hostsched.signals import Signals
from npuops.hostsched.trace_file import SCHEMA, Header, TraceWriter
from npuops.hostsched.trace_wire import Entry

LOADS = {
    "asleep": "gate.wait()",
    "chatty (5 ms)": "[time.sleep(0.005) for _ in iter(int, 1)]",
}
CHILD = """
import sys, threading, time
gate = threading.Event()
def work():
    {work}
for _ in range({count} - 1):
    threading.Thread(target=work, daemon=True).start()
print(flush=True)
sys.stdin.readline()
"""
HEADER = Header(schema=SCHEMA, kernel=os.uname().release, cpus=os.cpu_count() or 1, policy="", mode="observe",
                period_us=0, began_unix_us=0, version="benchmark")  # fmt: skip


def measure(pid: int, rate: float, seconds: float, folder: Path) -> tuple[float, float, float, float]:
    """CPU us for each look: signals, features, trace; and bytes of trace a second."""
    clock, features, spent = SystemClock(), Features(), [0, 0, 0]
    looks = int(rate * seconds)
    path = folder / f"{time.monotonic_ns()}"
    with Signals(Membership(Selection(pids=(pid,))), clock) as signals, TraceWriter(path, HEADER) as trace:
        for _ in range(10):
            features.update(signals.look({}))
        due_us = clock.now_us()
        for _ in range(looks):
            due_us += int(1e6 / rate)
            clock.sleep_until(due_us)
            marks = [time.thread_time_ns()]
            frame = signals.look({})
            marks.append(time.thread_time_ns())
            features.update(frame)
            marks.append(time.thread_time_ns())
            trace.write(Entry(frame=frame))
            marks.append(time.thread_time_ns())
            spent = [total + after - before for total, before, after in zip(spent, marks, marks[1:], strict=False)]
        size = trace.size_bytes
    path.unlink()
    signals_us, features_us, trace_us = (total / looks / 1000 for total in spent)
    return signals_us, features_us, trace_us, size / seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rates", default="10,50,100")
    parser.add_argument("--tasks", default="16,64")
    arguments = parser.parse_args()
    print(
        f"{os.uname().release}, {os.cpu_count()} CPUs, Python {sys.version.split()[0]}; CPU us a look, share of a core"
    )
    print("| load | tasks | Hz | signals | features | trace | signals + features of a core | trace KiB/s |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for load, work in LOADS.items():
            for count in map(int, arguments.tasks.split(",")):
                program = CHILD.format(work=work, count=count)
                with subprocess.Popen(
                    (sys.executable, "-c", program), stdin=subprocess.PIPE, stdout=subprocess.PIPE
                ) as child:
                    if child.stdout is not None:
                        child.stdout.readline()  # it is ready
                    for rate in map(float, arguments.rates.split(",")):
                        one, two, three, size = measure(child.pid, rate, arguments.seconds, Path(folder))
                        share = (one + two) * rate / 1e6
                        print(
                            f"| {load} | {count} | {rate:g} | {one:.0f} | {two:.0f} | {three:.0f} | {share:.2%} |"
                            f" {size / 1024:.1f} |",
                            flush=True,
                        )
                    child.kill()


if __name__ == "__main__":
    main()
