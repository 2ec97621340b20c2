"""What is summed up stays small, however many tasks come and go."""

from __future__ import annotations

import numpy as np

from npuops.eevdf.setting import DEFAULT
from npuops.hostsched.agent_facts import Stepped
from npuops.hostsched.applied import Applied, Denial
from npuops.hostsched.energy_meter import Energy
from npuops.hostsched.features import Features
from npuops.hostsched.frame import Frame, Host, Task, TaskId
from npuops.hostsched.guard import Checked
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.plan import Plan
from npuops.hostsched.recently import MOST
from npuops.hostsched.run_summary import Summing

UNMEASURED = Energy(joules=None, words="no meter here")
EACH = 8


def frame(number: int, ran_ms: int) -> Frame:
    """Tasks of which each run for so long, and nobody of an earlier number is left; the first of them serves."""
    ids = [TaskId(1000 + EACH * number + place, 7) for place in range(EACH)]
    return Frame(
        at_us=number * 40_000 + ran_ms * 1000,
        tasks=tuple(Task(each, each.tid, "job", None, 2) for each in ids),
        counters=np.array([[ran_ms * 1_000_000, 0, 0, 0, 0]] * EACH, np.int64),
        settings=(DEFAULT,) * EACH,
        hints=(Hint(0, Kind.LATENCY, slo_us=2000, served=100 * ran_ms, missed=0), *([None] * (EACH - 1))),
        group_nices={},
        host=Host(2, 2, 0, 0, None),
    )


def test_of_many_tasks_all_are_counted_with_their_cpu_time_and_only_the_latest_are_kept() -> None:
    summing, features, frames = Summing(), Features(), MOST // EACH * 2
    for number in range(frames):
        for ran_ms in (0, 10):
            seen = frame(number, ran_ms)
            denied = (Denial(seen.tasks[0].id, "bounds", "too far"),)
            summing(
                Stepped(
                    state=features.update(seen),
                    proposed=Plan(),
                    checked=Checked(Plan()),
                    orders=None,
                    applied=Applied(denied=denied),
                    late_us=0,
                )
            )
    found = summing.summary(UNMEASURED)
    assert found.tasks == frames * EACH
    assert round(found.run_s, 6) == frames * EACH * 0.01
    assert found.denied == {"bounds": frames}
    assert len(found.services) == MOST // EACH
    assert {service.served for service in found.services} == {1000}
