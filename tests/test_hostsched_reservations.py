"""Who has reservations is counted, and a refusal that they do not explain is told as such."""

from __future__ import annotations

import pytest

from hostsched_children import RESERVED, child, need_reservations
from npuops.hostsched.knobs import write_setting
from npuops.hostsched.reservations import Promised, most_cpus, promised


def test_a_task_with_a_reservation_is_counted_with_its_share() -> None:
    need_reservations()
    with child() as one:
        write_setting(one.pid, RESERVED)
        found = promised()
        assert found.tasks >= 1
        assert RESERVED.share - 1e-9 <= found.cpus
        assert found.cpus <= most_cpus() + 1e-9 or most_cpus() == 0


@pytest.mark.parametrize(("tasks", "cpus", "lost"), [(2, 1.7, False), (0, 0.0, True), (3, 1.5, True)])
def test_a_refusal_that_nobody_holds_is_the_kernels_own(tasks: int, cpus: float, lost: bool) -> None:
    told = Promised(tasks, cpus).refusal(0.2, 1.8)
    assert told.startswith(f"{tasks} tasks have {cpus:.2f} of 1.80 CPUs that may be reserved")
    assert ("anew" in told) is lost
