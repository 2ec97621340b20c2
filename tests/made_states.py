"""States with made-up features, for what looks at states and not at where they come from."""

from __future__ import annotations

import numpy as np

from npuops.eevdf.setting import DEFAULT
from npuops.hostsched.features import FRAMES, HISTORY, HOST_FEATURES, RATES, TASK_FEATURES, State
from npuops.hostsched.frame import COUNTERS, Frame, GroupId, Host, Task, TaskId
from npuops.hostsched.hint import Hint


def made_state(count: int, seed: int, *, hints: tuple[Hint | None, ...] | None = None, at_us: int = 1_000_000) -> State:
    random = np.random.default_rng(seed)
    group = GroupId("autogroup", "1")
    tasks = tuple(Task(TaskId(100 + number, 1), 100 + number, f"task{number}", group, 2) for number in range(count))
    frame = Frame(
        at_us=at_us,
        tasks=tasks,
        counters=np.zeros((count, len(COUNTERS)), np.int64),
        settings=(DEFAULT,) * count,
        hints=hints or (None,) * count,
        group_nices={group: 0},
        host=Host(cpus=2, runnable=1, busy_us=0, steal_us=0, pressure_us=0),
    )
    return State(
        frame=frame,
        window_us=20_000,
        rates=random.uniform(0, 1, (count, len(RATES))),
        tasks=random.uniform(-1, 1, (count, len(TASK_FEATURES))).astype(np.float32),
        history=random.uniform(-1, 1, (count, FRAMES, len(HISTORY))).astype(np.float32),
        host=random.uniform(0, 1, len(HOST_FEATURES)).astype(np.float32),
        seen=np.full(count, 9, np.int32),
    )
