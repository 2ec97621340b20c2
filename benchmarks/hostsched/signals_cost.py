"""What looking costs: CPU time of one look, of the features, and of the trace, by tasks, what they do, and reader.

    .venv/bin/python benchmarks/hostsched/signals_cost.py [--seconds 5] [--rates 10,50,100] [--cold 8] [--hints 5]

For each load (all asleep, all chatty) so many threads of a child are looked at, at a fixed rate, by a thread that does
nothing else, and its CPU time counts, not the time on the clock. Our C and Python take turns of a second each, so that
what else the machine does meets both. The child's load is not in it, but takes the caches: run it on a quiet machine,
and with nothing else on these CPUs. `--cold MIB` walks that much memory before each look, as the work of an agent's
host does. With `--hints COUNT`, a connection has ten words about each of so many threads each time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from npuops.clock import SystemClock
from npuops.hostsched.features import Features
from npuops.hostsched.hint_line import HintLine
from npuops.hostsched.hint_socket import HintSocket
from npuops.hostsched.hint_wire import Word
from npuops.hostsched.look_library import Reader, usual_reader
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
READERS = {"C": usual_reader(), "Python": Reader(None, "asked for")}
COLUMNS = ("hints", "signals", "features", "trace")
WORDS = 10


class Looker:
    """All that an agent does before it decides, by one reader."""

    def __init__(self, pid: int, reader: Reader, folder: Path, stack: ExitStack) -> None:
        self.spent = np.zeros(len(COLUMNS))
        self.looks = 0
        self._features = Features()
        self._path = folder / f"{time.monotonic_ns()}"
        self._hints = stack.enter_context(HintSocket(f"{self._path}.sock", reader=reader))
        self.line = HintLine(f"{self._path}.sock")
        self._signals = stack.enter_context(Signals(Membership(Selection(pids=(pid,))), SystemClock(), reader=reader))
        self._trace = stack.enter_context(TraceWriter(self._path, HEADER))
        for _ in range(10):
            self._features.update(self._signals.look({}))

    @property
    def size(self) -> int:
        return self._trace.size_bytes

    def look(self) -> None:
        marks = [time.thread_time_ns()]
        hints = self._hints.heard()
        marks.append(time.thread_time_ns())
        frame = self._signals.look(hints)
        marks.append(time.thread_time_ns())
        self._features.update(frame)
        marks.append(time.thread_time_ns())
        self._trace.write(Entry(frame=frame))
        marks.append(time.thread_time_ns())
        self.spent += np.diff(marks) / 1000
        self.looks += 1


def measure(pid: int, rate: float, options: argparse.Namespace, folder: Path) -> dict[str, tuple[list[float], float]]:
    """CPU us for each look, by column, and bytes of trace a look; by reader."""
    clock, caches = SystemClock(), np.zeros(options.cold << 20, np.uint8)
    with ExitStack() as stack:
        lookers = {name: Looker(pid, reader, folder, stack) for name, reader in READERS.items()}
        for _ in range(max(round(options.seconds), 1)):
            for looker in lookers.values():
                due_us = clock.now_us()
                for _ in range(max(int(rate), 1)):
                    due_us += int(1e6 / rate)
                    for thread in range(options.hints * WORDS):
                        looker.line.send(Word(tid=pid, served=1 + thread // WORDS, whole=thread % 2 == 0))
                    clock.sleep_until(due_us)
                    caches[::64] += 1
                    looker.look()
        return {name: ((each.spent / each.looks).tolist(), each.size / each.looks) for name, each in lookers.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each reader")
    parser.add_argument("--rates", default="10,50,100")
    parser.add_argument("--tasks", default="16,64")
    parser.add_argument("--cold", type=int, default=0, metavar="MIB")
    parser.add_argument("--hints", type=int, default=0)
    options = parser.parse_args()
    print(f"{os.uname().release}, {os.cpu_count()} CPUs, Python {sys.version.split()[0]}, {READERS['C'].words}")
    print(f"CPU us a look, {options.cold} MiB walked before each, {options.hints * WORDS} words in each")
    print(
        f"| load | tasks | Hz | reader | {' | '.join(COLUMNS)} | without trace, of a core | C : Python | trace KiB/s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for load, work in LOADS.items():
            for count in map(int, options.tasks.split(",")):
                program = CHILD.format(work=work, count=count)
                with subprocess.Popen(
                    (sys.executable, "-c", program), stdin=subprocess.PIPE, stdout=subprocess.PIPE
                ) as child:
                    if child.stdout is not None:
                        child.stdout.readline()  # it is ready
                    for rate in map(float, options.rates.split(",")):
                        found = measure(child.pid, rate, options, Path(folder))
                        python_us = sum(found["Python"][0][:2])
                        for name, (spent, size) in found.items():
                            print(
                                f"| {load} | {count} | {rate:g} | {name} | {' | '.join(f'{us:.0f}' for us in spent)} |"
                                f" {sum(spent[:-1]) * rate / 1e6:.2%} | {sum(spent[:2]) / python_us:.2f} |"
                                f" {size * rate / 1024:.1f} |",
                                flush=True,
                            )
                    child.kill()


if __name__ == "__main__":
    main()
