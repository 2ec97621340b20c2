from __future__ import annotations

import numpy as np

from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.hostsched.frame import Frame, GroupId, Host, Task, TaskId
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.levels import DEMOTE
from npuops.hostsched.live_view import COLUMNS, LiveView, hint_words, percent
from npuops.hostsched.plan import Plan

A, B = TaskId(11, 5), TaskId(12, 6)
GROUP = GroupId("autogroup", "7")


def frame(at_us: int, *rows: tuple[TaskId, int, int, int], busy_us: int = 0) -> Frame:
    """`rows`: task, run ms, wait ms, voluntary switches."""
    counters = [[run * 1_000_000, wait * 1_000_000, 0, voluntary, 0] for _, run, wait, voluntary in rows]
    return Frame(
        at_us=at_us,
        tasks=tuple(Task(task, task.tid, f"job{task.tid}", GROUP, 2) for task, *_ in rows),
        counters=np.array(counters, np.int64).reshape(len(rows), 5),
        settings=tuple(Setting() if task == A else Setting(SchedPolicy.IDLE) for task, *_ in rows),
        hints=tuple(Hint(0, Kind.LATENCY, slo_us=2000, queued=3) if task == A else None for task, *_ in rows),
        group_nices={GROUP: 5},
        host=Host(2, 3, busy_us, 0, None),
    )


def test_shares_are_of_the_time_since_the_last_view_and_the_busiest_comes_first() -> None:
    live = LiveView()
    live.view(frame(0, (A, 0, 0, 0), (B, 100, 0, 0)), Plan())
    view = live.view(
        frame(1_000_000, (A, 100, 50, 400), (B, 850, 10, 2), busy_us=1_000_000),
        Plan({B: DEMOTE}, {B: "a hog"}),
    )
    busy, quiet = view.rows
    assert (busy.task, busy.run_share, busy.level, busy.why) == (B, 0.75, "demote", "a hog")
    assert (quiet.run_share, quiet.wait_share, quiet.voluntary_per_s) == (0.1, 0.05, 400.0)
    assert quiet.cells() == (
        *("11", "job11", "autogroup 7", "10 %", "5.0 %", "400"),
        *("nice 0, group +5", "latency, slo 2 ms, 3 queued, 1 s old", "normal"),
    )
    assert len(quiet.cells()) == len(COLUMNS)
    assert view.busy_share == 0.5
    assert view.headline() == "2 CPUs, busy 50 %, 3 runnable"


def test_what_is_unknown_is_a_dash_and_never_nothing() -> None:
    row = LiveView().view(frame(0, (A, 5, 5, 5)), Plan()).rows[0]
    assert row.run_share is None
    assert row.cells()[3:6] == ("-", "-", "-")


def test_a_task_that_came_or_whose_counters_fell_breaks_nothing() -> None:
    live = LiveView()
    live.view(frame(0, (A, 900, 0, 0)), Plan())
    rows = {row.task: row for row in live.view(frame(1_000_000, (A, 3, 0, 0), (B, 500, 0, 0)), Plan()).rows}
    assert rows[A].run_share == 0.0
    assert rows[B].run_share is None


def test_two_looks_at_one_moment_and_no_task_at_all_are_shown() -> None:
    live = LiveView()
    assert live.view(frame(7), Plan()).rows == ()
    assert live.view(frame(7), Plan()).headline() == "2 CPUs, busy -, 3 runnable"


def test_words() -> None:
    assert hint_words(None, 0) == ""
    assert hint_words(Hint(0, served=10, missed=3), 5) == "hint, 3/10 late"
    assert [percent(share) for share in (None, 0.0, 0.0312, 0.0994, 0.0995, 1.0)] == [
        *("-", "0.0 %", "3.1 %", "9.9 %", "10 %", "100 %")
    ]
