"""CPU time of one decision: the reactive rule, the guard, the orders, and a list of 64 candidates.

    python benchmarks/hostsched/decision_cost.py [FRAMES]

Prints medians in microseconds for 4, 16 and 64 tasks, and what the first three take of a core at 20 and 50 Hz.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from npuops.eevdf.setting import DEFAULT
from npuops.hostsched.candidates import candidates
from npuops.hostsched.features import Features, State
from npuops.hostsched.frame import Frame, Host, Task, TaskId
from npuops.hostsched.guard import Guard
from npuops.hostsched.orders import orders_for
from npuops.hostsched.reactive import Reactive

PERIOD_US = 20_000
SERVES = np.array([300_000, 100_000, 3, 3, 0])
COMPUTES = np.array([5_000_000, 14_000_000, 2, 0, 2])
"""What a task adds to its counters in one period."""


def states(count: int, frames: int) -> list[State]:
    tasks = tuple(Task(TaskId(100 + n, 1), 100 + n, f"t{n}", None, 2) for n in range(count))
    step = np.array([SERVES if n % 4 == 0 else COMPUTES for n in range(count)], np.int64)
    features, found = Features(), []
    for number in range(1, frames + 1):
        host = Host(2, count, 0, 0, None)
        frame = Frame(number * PERIOD_US, tasks, step * number, (DEFAULT,) * count, (None,) * count, {}, host)
        found.append(features.update(frame))
    return found


def timed(spent: list[float], act: Callable[..., Any], *words: Any) -> Any:
    began = time.thread_time_ns()
    found = act(*words)
    spent.append((time.thread_time_ns() - began) / 1000)
    return found


def main() -> None:
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"{'tasks':>5} {'decide':>8} {'guard':>8} {'orders':>8} {'64 cand.':>9}   of a core at 20 Hz, 50 Hz")
    for count in (4, 16, 64):
        rule, guard = Reactive(), Guard()
        spent: list[list[float]] = [[], [], [], []]
        for state in states(count, frames):
            plan = timed(spent[0], rule.decide, state)
            checked = timed(spent[1], guard.check, state, plan)
            timed(spent[2], orders_for, checked.plan, state.frame)
            timed(spent[3], candidates, state, plan)
        medians = [statistics.median(values) for values in spent]
        one = sum(medians[:3])
        figures = " ".join(f"{value:8.0f}" for value in medians)
        print(f"{count:5d} {figures} us   {one * 20 / 1e6:.2%}, {one * 50 / 1e6:.2%}")


if __name__ == "__main__":
    main()
