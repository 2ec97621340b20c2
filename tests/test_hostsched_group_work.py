"""Who does the work of a group, by what its tasks did lately."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest

from npuops.eevdf.setting import DEFAULT
from npuops.hostsched.frame import Frame, Host, Task
from npuops.hostsched.group_work import FADE_US, GroupWork
from npuops.hostsched.task_id import GroupId, TaskId

GROUP = GroupId("autogroup", "3")
SECOND = 1_000_000
NOW = 1000 * SECOND
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def frame(at_us: int, **tasks: tuple[int, float]) -> Frame:
    """Tasks by name: when each was started, and the CPU time that it took since, in s."""
    ids = [TaskId(number, started * TICKS_PER_S) for number, (started, _) in enumerate(tasks.values(), 10)]
    return Frame(
        at_us=at_us,
        tasks=tuple(Task(each, each.tid, name, GROUP, 2) for each, name in zip(ids, tasks, strict=True)),
        counters=np.array([[round(ran * 1e9), 0, 0, 0, 0] for _, ran in tasks.values()], np.int64),
        settings=(DEFAULT,) * len(ids),
        hints=(None,) * len(ids),
        group_nices={},
        host=Host(2, 2, 0, 0, None),
    )


def test_of_a_long_history_only_what_may_have_been_lately_counts() -> None:
    old = frame(NOW, veteran=(0, 500.0), newcomer=(995, 5.0))
    nices = {task.id: nice for task, nice in zip(old.tasks, (0, -1), strict=True)}
    work = GroupWork().follow(old, nices)[GROUP]
    assert work.neutral_ns == pytest.approx(500e9 * (FADE_US / NOW)), "half of a CPU, as in each ten seconds"
    assert work.ahead_ns == pytest.approx(5e9), "younger than what counts: all of it"


def test_work_fades_and_new_work_counts_in_full() -> None:
    follows, first = GroupWork(), frame(NOW, veteran=(0, 500.0))
    nices = {first.tasks[0].id: 0}
    before = follows.follow(first, nices)[GROUP].neutral_ns
    after = follows.follow(frame(NOW + SECOND, veteran=(0, 500.25)), nices)[GROUP].neutral_ns
    assert after == pytest.approx(before * math.exp(-SECOND / FADE_US) + 0.25e9)


def test_what_a_task_did_outlives_it() -> None:
    follows, first = GroupWork(), frame(NOW, make=(999, 0.0), compiler=(999, 0.5))
    lowered = {first.tasks[0].id: None, first.tasks[1].id: 19}
    follows.follow(first, lowered)
    left = follows.follow(frame(NOW + SECOND, make=(999, 0.0)), {first.tasks[0].id: 0})[GROUP]
    assert left.lowered_ns == pytest.approx(0.5e9 * math.exp(-SECOND / FADE_US))
    assert left.nice == 19
