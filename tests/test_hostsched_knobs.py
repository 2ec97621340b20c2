"""Settings of real children: set, read, put back; what the kernel refuses is told."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hostsched_children import RESERVED, child, eventually, need_privilege, need_reservations, without_privilege
from npuops.eevdf.setting import DEFAULT, SchedPolicy, Setting
from npuops.hostsched.attributes import Attributes
from npuops.hostsched.knobs import (
    AdmissionError,
    KnobError,
    NotPermittedError,
    TaskGoneError,
    base_slice_ns,
    read_attributes,
    read_setting,
    write_attributes,
    write_setting,
)

SETTINGS = [
    Setting(nice=7),
    Setting(nice=7, slice_us=500),
    Setting(SchedPolicy.BATCH, 3),
    Setting(SchedPolicy.BATCH, 3, 20_000),
    Setting(SchedPolicy.IDLE),
    Setting(SchedPolicy.IDLE, slice_us=700),
    Setting(nice=-10),
    Setting(reset_on_fork=True),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_what_is_written_is_read_and_can_be_put_back(setting: Setting) -> None:
    need_privilege()
    if setting.slice_us is not None and not base_slice_ns():
        pytest.skip("this kernel takes no slice from user space (Linux 6.12 does)")
    with child() as one:
        before = read_attributes(one.pid)
        write_setting(one.pid, setting)
        assert one.setting == setting
        write_attributes(one.pid, before)
        assert one.setting == DEFAULT


def test_a_reservation_is_set_and_put_back() -> None:
    need_privilege()
    need_reservations()
    with child() as one:
        write_setting(one.pid, Setting(nice=3))
        before = read_attributes(one.pid)
        write_setting(one.pid, RESERVED)
        assert one.setting == RESERVED
        write_attributes(one.pid, before)
        assert one.setting == Setting(nice=3)


def test_a_reserved_task_can_still_make_children() -> None:
    need_privilege()
    need_reservations()
    with child() as one:
        write_setting(one.pid, Setting(SchedPolicy.DEADLINE, runtime_us=1000, period_us=10_000))
        assert read_setting(one.make("child").tid) == DEFAULT


def test_a_slice_of_its_own_is_told_from_the_default_and_survives_a_nice_value() -> None:
    if not base_slice_ns():
        pytest.skip("this kernel takes no slice from user space (Linux 6.12 does)")
    with child() as one:
        assert one.setting.slice_us is None
        write_setting(one.pid, Setting(slice_us=900))
        os.setpriority(os.PRIO_PROCESS, one.pid, 4)
        assert one.setting == Setting(nice=4, slice_us=900)
        write_setting(one.pid, Setting(nice=4))
        assert one.setting == Setting(nice=4)


def test_a_slice_finer_than_a_microsecond_is_put_back_as_it_was() -> None:
    if not base_slice_ns():
        pytest.skip("this kernel takes no slice from user space (Linux 6.12 does)")
    with child() as one:
        write_attributes(one.pid, Attributes(runtime_ns=1_234_567))
        before = read_attributes(one.pid)
        write_setting(one.pid, Setting(slice_us=5000))
        write_attributes(one.pid, before)
        assert read_attributes(one.pid).runtime_ns == 1_234_567


def test_a_thread_is_set_without_its_process() -> None:
    with child() as one:
        thread = one.make("thread")
        write_setting(thread.tid, Setting(nice=9))
        assert (read_setting(thread.tid).nice, one.setting.nice) == (9, 0)


def test_a_task_that_ended_is_told() -> None:
    with child() as one:
        pass
    with pytest.raises(TaskGoneError):
        read_setting(one.pid)
    with pytest.raises(TaskGoneError):
        write_attributes(one.pid, Attributes(nice=5))


def test_a_pinned_task_gets_no_reservation_and_the_error_says_why() -> None:
    need_privilege()
    need_reservations()
    if (os.cpu_count() or 1) < 2:
        pytest.skip("with one processor nothing is pinned")
    with child() as one:
        os.sched_setaffinity(one.pid, {0})
        with pytest.raises(NotPermittedError, match="may not run on every processor") as refused:
            write_setting(one.pid, RESERVED)
        assert "pinning" in refused.value.advice


def test_a_reservation_that_does_not_fit_beside_others_is_told() -> None:
    need_privilege()
    need_reservations()
    all_of_one = Setting(SchedPolicy.DEADLINE, runtime_us=9_000, period_us=10_000)
    with child() as one:
        tids = [one.pid] + [one.make("thread").tid for _ in range(os.cpu_count() or 1)]
        with pytest.raises(AdmissionError, match="95 %"):
            set_all(tids, all_of_one)


def set_all(tids: list[int], setting: Setting) -> None:
    for tid in tids:
        write_setting(tid, setting)


def test_a_period_out_of_the_kernels_bounds_is_told() -> None:
    need_privilege()
    need_reservations()
    with child() as one, pytest.raises(KnobError, match="bounds"):
        write_setting(one.pid, Setting(SchedPolicy.DEADLINE, runtime_us=2, period_us=4))


UNPRIVILEGED = """
import os, sys
from npuops.eevdf.setting import Setting
from npuops.hostsched.knobs import NotPermittedError, write_setting
write_setting(0, Setting(nice=5))
try:
    write_setting(0, Setting(nice=4))
except NotPermittedError as error:
    print("refused:", error.message, "-", error.advice)
"""


def test_without_privilege_the_error_names_what_is_missing() -> None:
    done = subprocess.run(
        [*without_privilege(), sys.executable, "-c", UNPRIVILEGED],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.count("refused:") == 1, done.stderr
    assert "CAP_SYS_NICE" in done.stdout


def test_an_idle_task_gets_the_nice_value_and_slice_back_that_it_will_have_after_idling() -> None:
    need_privilege()
    with child() as one:
        original = Attributes(SchedPolicy.IDLE, nice=4, runtime_ns=900_000 if base_slice_ns() else 0)
        write_attributes(one.pid, original)
        assert read_attributes(one.pid) == original
        write_setting(one.pid, Setting(nice=19))
        write_attributes(one.pid, original)
        assert read_attributes(one.pid) == original
        os.sched_setscheduler(one.pid, os.SCHED_OTHER, os.sched_param(0))
        assert one.setting.nice == 4


def test_a_kernel_that_loses_count_of_reservations_is_made_to_count_anew() -> None:
    """Linux 6.18 loses one whenever a task that sleeps leaves it: it granted none any more after 18 of these."""
    need_reservations()
    with child() as one:
        one.make("thread")  # whoever answers has started, and sleeps now

        def granted() -> bool:
            try:
                write_setting(one.pid, RESERVED)
            except AdmissionError:
                return False
            return True

        for _ in range(40):
            eventually(granted, "nothing is granted any more")
            write_setting(one.pid, DEFAULT)
