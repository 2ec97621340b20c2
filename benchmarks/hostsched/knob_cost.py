"""What each knob costs through npuops, on a child that sleeps: the median of single calls, in microseconds.

    python benchmarks/hostsched/knob_cost.py [--calls 2000] [--json]

The column `apply` is a whole step of the actuator with nothing to do, for so many tasks: what a quiet agent pays.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.hostsched.actuate import Actuator
from npuops.hostsched.attributes import wanted
from npuops.hostsched.group_knobs import autogroup_of, write_native
from npuops.hostsched.knobs import KnobError, read_attributes, read_setting, write_attributes
from npuops.hostsched.plan import Orders
from npuops.hostsched.process_stat import look_at
from npuops.hostsched.task_id import TaskId


def median_us(call: Callable[[int], object], calls: int) -> float:
    took = []
    for number in range(calls):
        began = time.perf_counter_ns()
        call(number)
        took.append(time.perf_counter_ns() - began)
    return statistics.median(took) / 1000


def task_costs(pid: int, calls: int) -> dict[str, float]:
    pairs = {
        "nice": (Setting(nice=5), Setting(nice=6)),
        "slice": (Setting(slice_us=500), Setting(slice_us=600)),
        "batch": (Setting(), Setting(SchedPolicy.BATCH)),
        "idle": (Setting(), Setting(SchedPolicy.IDLE)),
    }
    costs = {"read": median_us(lambda _: read_setting(pid), calls), "stat": median_us(lambda _: look_at(pid), calls)}
    before = read_attributes(pid)
    for name, pair in pairs.items():
        both = [wanted(setting, before) for setting in pair]
        try:
            costs[name] = median_us(lambda number, both=both: write_attributes(pid, both[number % 2]), calls)  # type: ignore[misc]
        except KnobError as error:
            print(f"{name}: {error.message}", file=sys.stderr)
        write_attributes(pid, before)
    group = autogroup_of(pid)
    if group is not None:
        costs["autogroup"] = median_us(lambda number: write_native(group[0], number % 5, pid), min(calls, 200))
    return costs


def steps(folder: str, tasks: dict[TaskId, Setting | None], calls: int) -> dict[str, float]:
    with Actuator(Path(folder), timeout_ms=60_000) as actuator:
        same = Orders(tasks, {})
        both = [Orders(dict.fromkeys(tasks, Setting(nice=nice)), {}) for nice in (6, 7)]
        actuator.apply(same)
        quiet = median_us(lambda _: actuator.apply(same), calls // 10)
        busy = median_us(lambda number: actuator.apply(both[number % 2]), calls // 40)
    return {f"apply, {len(tasks)} tasks, no change": quiet, f"apply, {len(tasks)} tasks, all changed": busy}


def reservation_cost(rounds: int = 20) -> dict[str, float]:
    """Each on a child of its own: turn by turn on the same one, Linux 6.18 loses bandwidth."""
    reserved = wanted(Setting(SchedPolicy.DEADLINE, runtime_us=1000, period_us=10_000))
    took = []
    for _ in range(rounds):
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        try:
            began = time.perf_counter_ns()
            write_attributes(child.pid, reserved)
            took.append(time.perf_counter_ns() - began)
        except KnobError as error:
            print(f"reservation: {error.message}", file=sys.stderr)
            return {}
        finally:
            child.kill()
            child.wait()
    return {"reservation": statistics.median(took) / 1000}


def apply_costs(counts: list[int], calls: int) -> dict[str, float]:
    costs = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            children = [subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(count)]
            try:
                tasks: dict[TaskId, Setting | None] = {}
                for child in children:
                    stat = look_at(child.pid)
                    if stat is not None:
                        tasks[stat.id] = Setting(nice=5)
                costs |= steps(folder, tasks, calls)
            finally:
                for child in children:
                    child.kill()
                    child.wait()
    return costs


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--calls", type=int, default=2000)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        costs = task_costs(child.pid, given.calls) | reservation_cost() | apply_costs([1, 16, 64], given.calls)
    finally:
        child.kill()
        child.wait()
    if given.json:
        print(json.dumps({"unit": "us, median", "costs": costs}))
        return
    for name, cost in costs.items():
        print(f"{name:32} {cost:9.2f} us")


if __name__ == "__main__":
    main()
