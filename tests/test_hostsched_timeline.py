from __future__ import annotations

from xml.etree import ElementTree as ET

import numpy as np

from npuops.eevdf.setting import DEFAULT
from npuops.hostsched.frame import Frame, Host, Task, TaskId
from npuops.hostsched.levels import BOOST, DEMOTE
from npuops.hostsched.plan import Plan
from npuops.hostsched.timeline import MOST_TASKS, svg_timeline, text_timeline, timeline

A, B = TaskId(11, 5), TaskId(12, 6)


def look(at_ms: int, runs: dict[TaskId, int], plan: Plan | None = None, name: str = "job") -> tuple[Frame, Plan]:
    counters = np.zeros((len(runs), 5), np.int64)
    counters[:, 0] = [run * 1_000_000 for run in runs.values()]
    tasks = tuple(Task(task, task.tid, name, None, 1) for task in runs)
    found = Frame(
        at_ms * 1000, tasks, counters, (DEFAULT,) * len(runs), (None,) * len(runs), {}, Host(1, 1, 0, 0, None)
    )
    return found, plan or Plan()


def test_a_lane_shows_when_a_task_ran_and_what_held() -> None:
    looks = [look(at, {A: min(at, 500), B: 0}, Plan({B: DEMOTE}) if at >= 500 else None) for at in range(0, 1001, 20)]
    line = timeline(looks, columns=10)
    assert [lane.task for lane in line.lanes] == [A, B]
    np.testing.assert_allclose(line.lanes[0].shares, [1] * 5 + [0] * 5, atol=0.21)
    assert line.lanes[1].levels == ("normal",) * 5 + ("demote",) * 5
    assert line.seconds == 1.0


def test_a_task_that_came_later_has_no_share_before() -> None:
    line = timeline([look(0, {A: 0}), look(500, {A: 1, B: 0}), look(1000, {A: 2, B: 500})], columns=2)
    shares = {lane.task: lane.shares for lane in line.lanes}
    assert np.isnan(shares[B][0])
    assert shares[B][1] == 1.0


def test_the_text_names_each_task_and_each_level_with_a_letter_of_its_own() -> None:
    plan = Plan({A: DEMOTE, B: BOOST})
    text = text_timeline(timeline([look(0, {A: 0, B: 0}, plan), look(1000, {A: 900, B: 10}, plan)]))
    assert "job 11" in text
    assert "b boost" in text
    assert "d demote" in text
    assert max(len(row) for row in text.splitlines()) <= 100


def test_only_the_busiest_are_drawn_and_the_rest_is_counted() -> None:
    tasks = [TaskId(tid, 1) for tid in range(1, MOST_TASKS + 4)]
    line = timeline([look(0, dict.fromkeys(tasks, 0)), look(1000, {task: task.tid for task in tasks})])
    assert (len(line.lanes), line.left_out) == (MOST_TASKS, 3)
    assert "and 3 tasks that ran less" in text_timeline(line)


def test_the_svg_is_well_formed_whatever_a_task_is_called() -> None:
    line = timeline([look(0, {A: 0}, name="<&'\">"), look(100, {A: 50}, Plan({A: DEMOTE}), name="<&'\">")])
    root = ET.fromstring(svg_timeline(line, 'a "title" & <more>'))  # noqa: S314 - we wrote it
    assert root.tag.endswith("svg")


def test_nothing_seen_is_nothing_drawn() -> None:
    assert text_timeline(timeline([])) == ""
    assert svg_timeline(timeline([]), "nothing").startswith("<svg")
    assert text_timeline(timeline([look(0, {A: 0})])) != ""
