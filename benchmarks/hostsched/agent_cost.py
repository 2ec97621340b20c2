"""What the agent itself costs: CPU time of its process and of its reaper, by verb, tasks and load.

    .venv/bin/python benchmarks/hostsched/agent_cost.py [--tasks 8,16,64] [--load mixed] [--seconds 10] [--repeats 3]
    … --source src --source /elsewhere/src      two versions, interleaved

Each agent is a real one (`npuops hostsched …`, looking every 20 ms) and has the same tasks in turn with the others, in
so many rounds; the table holds medians. By default its budget is switched off, so that the figure is what looking at
full rate costs; `--cpu-share 1` measures what it makes of a budget. `mixed` is one task that computes, a quarter that
wake every 10 ms, and the rest every 100 ms; in `light` all wake every 5 ms; in `asleep` none does. With another task on
this machine its caches are colder, and the figures higher: run it on a quiet one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERBS = {
    "observe": ("observe",),
    "act default": ("act", "--policy", "default"),
    "act reactive": ("act", "--policy", "reactive"),
    "act learned": ("act", "--policy", "learned"),
}
TASKS = """
import ctypes, os, sys, time
count, load = int(sys.argv[1]), sys.argv[2]
children = []
for place in range(count):
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
        while load == "mixed" and place == 0:
            pass
        gap = {"asleep": 3600, "light": 0.005, "mixed": 0.01 if place <= count // 4 else 0.1}[load]
        while True:
            time.sleep(gap)
    children.append(child)
print(*children, flush=True)
sys.stdin.read()
"""
AGENT = "from npuops.cli.main import main; main()"


def cpu_ns(pid: int) -> int:
    """Of all threads of a process."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def children_of(pid: int) -> list[int]:
    """Its processes: the reaper."""
    return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]


@contextmanager
def tasks(count: int, load: str) -> Iterator[list[int]]:
    """So many processes."""
    words = (sys.executable, "-c", TASKS, str(count), load)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        pids = [int(word) for word in child.stdout.readline().split()] if child.stdout is not None else []
        try:
            yield pids
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            child.kill()


def measure(
    source: Path, verb: tuple[str, ...], pids: list[int], arguments: argparse.Namespace
) -> tuple[float, float, float]:
    """Percent of a core of agent and reaper, and looks a second."""
    words = [sys.executable, "-c", AGENT, "hostsched", *verb, "--json", *(f"--pid={pid}" for pid in pids)]
    if "cpu-share" in (source / "npuops/cli/hostsched_flags.py").read_text():
        words.append(f"--cpu-share={arguments.cpu_share:g}")
    with tempfile.TemporaryDirectory() as folder:
        place = {"PYTHONPATH": str(source), "NPUOPS_HINT_SOCKET": f"{folder}/s", "NPUOPS_LEASES": folder}
        # Into a file: a pipe that nobody reads would be full one day, and the agent wait for ever.
        said = Path(folder) / "said"
        with said.open("w") as file, subprocess.Popen(words, stdout=file, env=os.environ | place) as agent:
            while '"started"' not in said.read_text():
                if agent.poll() is not None:
                    raise SystemExit(f"{' '.join(verb)} did not start: {said.read_text()}")
                time.sleep(0.05)
            time.sleep(arguments.settle)
            watched = [agent.pid, *children_of(agent.pid)]
            before, began = [cpu_ns(pid) for pid in watched], time.monotonic_ns()
            time.sleep(arguments.seconds)
            after, ended = [cpu_ns(pid) for pid in watched], time.monotonic_ns()
            agent.send_signal(signal.SIGTERM)
            agent.wait()
        last = said.read_text().splitlines()[-1]
    shares = [100 * (late - early) / (ended - began) for early, late in zip(before, after, strict=True)]
    summary = json.loads(last)["summary"]
    return shares[0], sum(shares[1:]), summary["steps"] / summary["seconds"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="8,16,64")
    parser.add_argument("--load", choices=("asleep", "light", "mixed"), default="mixed")
    parser.add_argument("--verbs", default="observe,act default,act reactive")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--settle", type=float, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu-share", type=float, default=100)
    parser.add_argument("--source", type=Path, action="append")
    arguments = parser.parse_args()
    sources = arguments.source or [ROOT / "src"]
    print(f"{os.uname().release}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; {arguments.load}; medians")
    print("| source | verb | tasks | agent, % of a core | reaper, % | looks/s | CPU us a look |")
    print("|---|---|---|---|---|---|---|")
    for count in map(int, arguments.tasks.split(",")):
        found: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
        with tasks(count, arguments.load) as pids:
            for _ in range(arguments.repeats):
                for verb in arguments.verbs.split(","):
                    for source in sources:
                        found[str(source), verb].append(measure(source, VERBS[verb], pids, arguments))
        for (name, verb), rows in found.items():
            agent, reaper, rate = (statistics.median(row[column] for row in rows) for column in range(3))
            each = agent / 100 / rate * 1e6
            print(f"| {name} | {verb} | {count} | {agent:.2f} | {reaper:.2f} | {rate:.1f} | {each:.0f} |", flush=True)


if __name__ == "__main__":
    main()
