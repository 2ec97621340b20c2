"""The actuator on the real kernel: what was ordered holds, what was not is back, and nobody else's work is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hostsched_children import RESERVED, child, eventually, need_privilege, need_reservations, orders, without_privilege
from npuops.eevdf.setting import DEFAULT, SchedPolicy, Setting
from npuops.errors import StorageError, UsageError
from npuops.hostsched.actuate import Actuator
from npuops.hostsched.applied import Applied
from npuops.hostsched.group_knobs import autogroup_of, read_native
from npuops.hostsched.knobs import read_setting, write_setting
from npuops.hostsched.lease_file import read_lease_file
from npuops.hostsched.process_stat import now_ticks
from npuops.hostsched.rights import Rights
from npuops.hostsched.task_id import GroupId, TaskId

DEMOTED = Setting(nice=19)
PATIENT_MS = 60_000
ROOT = GroupId("cgroup1", "/")
BATCH_LINE = "() batch, nice 0"


@pytest.fixture
def actuator(tmp_path: Path) -> Iterator[Actuator]:
    need_privilege()
    with Actuator(tmp_path, timeout_ms=PATIENT_MS) as one:
        yield one


def rules(applied: Applied) -> list[str]:
    return [denial.rule for denial in applied.denied]


def lease_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.leases"))


def test_what_is_ordered_holds_until_it_is_ordered_no_more(actuator: Actuator) -> None:
    with child() as one:
        for setting in (DEMOTED, Setting(SchedPolicy.IDLE), Setting(SchedPolicy.BATCH, 3), Setting(nice=-10)):
            applied = actuator.apply(orders({one.id: setting}))
            after = replace(setting, reset_on_fork=setting.nice < 0)
            assert [(change.what, change.after, change.back) for change in applied.changed] == [(one.id, after, False)]
            assert one.setting.policy is setting.policy
            assert actuator.apply(orders({one.id: setting})) == Applied()
        assert actuator.apply(orders({one.id: None})).changed[0].back
        assert one.setting == DEFAULT


def test_a_task_that_is_not_named_is_put_back(actuator: Actuator) -> None:
    with child() as one:
        actuator.apply(orders({one.id: DEMOTED}))
        actuator.apply(orders())
        assert one.setting == DEFAULT


def test_what_a_task_had_is_put_back_and_not_a_default(actuator: Actuator) -> None:
    with child() as one:
        had = Setting(SchedPolicy.BATCH, 4, 900, reset_on_fork=True)
        write_setting(one.pid, had)
        had = one.setting  # a kernel older than 6.12 takes no slice
        actuator.apply(orders({one.id: DEMOTED}))
        actuator.apply(orders({one.id: Setting(SchedPolicy.IDLE)}))
        actuator.close()
        assert one.setting == had


def test_a_reservation_leaves_nothing_behind_not_even_in_the_timer_slack(actuator: Actuator) -> None:
    need_reservations()
    with child() as one:
        slack = Path(f"/proc/{one.pid}/timerslack_ns")
        slack.write_text("77000")
        actuator.apply(orders({one.id: RESERVED}))
        assert one.setting == RESERVED
        actuator.apply(orders({one.id: None}))
        assert (one.setting, slack.read_text().strip()) == (DEFAULT, "77000")


def test_reservations_take_no_more_than_their_part_of_the_host(actuator: Actuator) -> None:
    need_reservations()
    cpus = os.cpu_count() or 1
    half = Setting(SchedPolicy.DEADLINE, runtime_us=5_000, period_us=10_000)
    with child() as one:
        tasks = [one.id] + [one.make("thread") for _ in range(2 * cpus)]
        applied = actuator.apply(orders(dict.fromkeys(tasks, half)))
        reserved = [task for task in tasks if read_setting(task.tid).policy is SchedPolicy.DEADLINE]
        assert len(reserved) * 0.5 <= 0.6 * cpus
        assert "bounds" in rules(applied)


def test_out_of_bounds_is_refused_and_nothing_is_changed(actuator: Actuator) -> None:
    with child() as one:
        for setting in (Setting(nice=-11), Setting(slice_us=499), Setting(SchedPolicy.FIFO, rt_priority=1)):
            applied = actuator.apply(orders({one.id: setting}))
            assert (rules(applied), applied.changed, one.setting) == (["bounds"], (), DEFAULT)


def test_real_time_tasks_of_others_are_left_alone(actuator: Actuator) -> None:
    need_reservations()
    with child() as one:
        write_setting(one.pid, RESERVED)
        applied = actuator.apply(orders({one.id: DEMOTED}))
        assert (rules(applied), one.setting) == (["somebody else's"], RESERVED)


def test_init_the_kernel_and_the_agent_are_never_touched(actuator: Actuator) -> None:
    from hostsched_children import task_id  # noqa: PLC0415

    untouchable = [task_id(pid) for pid in (1, os.getpid(), actuator.reaper_pid)]
    kernel = Path("/proc/2/comm")
    if kernel.exists() and kernel.read_text().strip() == "kthreadd":
        untouchable.append(task_id(2))
    before = [read_setting(task.tid) for task in untouchable]
    applied = actuator.apply(orders(dict.fromkeys(untouchable, Setting(nice=1))))
    assert rules(applied) == ["not ours"] * len(untouchable)
    assert [read_setting(task.tid) for task in untouchable] == before


def test_a_number_that_belongs_to_another_task_now_is_not_touched(actuator: Actuator) -> None:
    with child() as one:
        other = TaskId(one.pid, one.id.start_ticks - 1)
        applied = actuator.apply(orders({other: DEMOTED}))
        assert (applied.gone, one.setting) == ((other,), DEFAULT)


def test_a_task_that_ends_is_told_and_forgotten(actuator: Actuator) -> None:
    with child() as one:
        actuator.apply(orders({one.id: DEMOTED}))
    assert actuator.apply(orders({one.id: DEMOTED})).gone == (one.id,)
    assert actuator.apply(orders()) == Applied()


def test_what_somebody_else_sets_is_theirs_and_told_once(actuator: Actuator) -> None:
    with child() as one:
        actuator.apply(orders({one.id: DEMOTED}))
        write_setting(one.pid, Setting(nice=7))
        applied = actuator.apply(orders({one.id: DEMOTED}))
        assert [denial.what for denial in applied.lost] == [one.id]
        assert actuator.apply(orders({one.id: Setting(nice=12)})) == Applied()
        actuator.close()
        assert one.setting == Setting(nice=7)


def test_what_somebody_else_set_between_two_claims_is_what_is_put_back(actuator: Actuator) -> None:
    with child() as one:
        actuator.apply(orders({one.id: DEMOTED}))
        actuator.apply(orders({one.id: None}))
        write_setting(one.pid, Setting(nice=7))
        actuator.apply(orders({one.id: DEMOTED}))
        actuator.close()
        assert one.setting == Setting(nice=7)


@pytest.mark.parametrize("kind", ["thread", "child", "orphan"])
def test_who_is_born_of_a_demoted_task_is_put_back_with_it(actuator: Actuator, kind: str) -> None:
    with child() as one:
        actuator.apply(orders({one.id: DEMOTED}))
        born = one.make(kind)
        assert read_setting(born.tid) == DEMOTED
        actuator.close()
        assert read_setting(born.tid) == DEFAULT


@pytest.mark.parametrize("kind", ["thread", "child", "orphan"])
def test_who_is_born_of_a_demoted_task_is_normal_when_that_is_ordered(actuator: Actuator, kind: str) -> None:
    with child() as one:
        actuator.apply(orders({one.id: DEMOTED}))
        born = one.make(kind)
        actuator.apply(orders({one.id: DEMOTED, born: None}))
        assert (one.setting, read_setting(born.tid)) == (DEMOTED, DEFAULT)


def test_who_is_born_of_a_demoted_task_is_put_back_when_only_that_task_is_managed(actuator: Actuator) -> None:
    with child() as one:
        actuator.apply(orders({one.id: DEMOTED}))
        born = one.make("child")
        eventually(lambda: bool(actuator.apply(orders({one.id: None}))) and read_setting(born.tid) == DEFAULT)


@pytest.mark.parametrize("kind", ["thread", "child", "orphan"])
def test_who_is_born_of_a_boosted_task_begins_as_it_would_have_without_us(actuator: Actuator, kind: str) -> None:
    with child() as one:
        actuator.apply(orders({one.id: Setting(nice=-10, slice_us=900)}))
        made = one.make(kind)
        assert read_setting(made.tid) == DEFAULT
        assert actuator.apply(orders({one.id: Setting(nice=-10, slice_us=900), made: None})) == Applied()
        assert actuator.apply(orders({made: None})).changed[0].back
        assert one.setting == DEFAULT


def test_a_boost_that_could_not_be_kept_from_children_for_good_is_passed_on(tmp_path: Path) -> None:
    need_privilege()
    with Actuator(tmp_path, timeout_ms=PATIENT_MS, rights=Rights(may_raise=False)) as actuator, child() as one:
        actuator.apply(orders({one.id: Setting(nice=-10)}))
        assert not one.setting.reset_on_fork


def test_an_older_child_keeps_what_it_has(actuator: Actuator) -> None:
    with child() as one:
        older = one.make("child")
        eventually(lambda: now_ticks() > older.start_ticks)  # the kernel tells births to a hundredth of a second
        write_setting(older.tid, DEMOTED)
        actuator.apply(orders({one.id: DEMOTED}))
        actuator.close()
        assert read_setting(older.tid) == DEMOTED


def test_an_autogroup_is_set_and_put_back(actuator: Actuator) -> None:
    with child() as one:
        found = autogroup_of(one.pid)
        if found is None:
            pytest.skip("this kernel makes no autogroups")
        group = found[0]
        applied = actuator.apply(orders({one.id: None}, {group: 19}))
        assert [(change.before, change.after) for change in applied.changed] == [(0, 19)]
        assert autogroup_of(one.pid) == (group, 19)
        assert actuator.apply(orders({one.id: None}, {group: 19})) == Applied()
        actuator.apply(orders({one.id: None}, {group: None}))
        assert autogroup_of(one.pid) == (group, 0)
        actuator.apply(orders({}, {group: 5}))
        Path(f"/proc/{one.pid}/autogroup").write_text("7")
        assert [denial.what for denial in actuator.apply(orders({}, {group: 5})).lost] == [group]
        actuator.close()
        assert autogroup_of(one.pid) == (group, 7)


def test_the_group_of_the_reaper_is_never_lowered(actuator: Actuator) -> None:
    seen = autogroup_of(actuator.reaper_pid)
    if seen is None:
        pytest.skip("no autogroups here")
    assert rules(actuator.apply(orders({}, {seen[0]: 19}))) == ["not ours"]
    assert autogroup_of(actuator.reaper_pid) == seen


def test_a_group_out_of_bounds_or_not_there_is_refused(actuator: Actuator) -> None:
    with child() as one:
        found = autogroup_of(one.pid)
        if found is None:
            pytest.skip("this kernel makes no autogroups")
        applied = actuator.apply(
            orders({}, {found[0]: -15, GroupId("cgroup1", "/"): 5, GroupId("cgroup2", "/../x"): 5})
        )
        assert rules(applied).count("the kernel") == 2
        assert "bounds" in rules(applied)[0]
        assert autogroup_of(one.pid) == found


def test_a_cgroup_gets_the_weight_back_that_it_had(actuator: Actuator, own_cgroup: GroupId) -> None:
    had = read_native(own_cgroup)
    actuator.apply(orders({}, {own_cgroup: 10}))
    assert read_native(own_cgroup) not in (had, 0)
    actuator.close()
    assert read_native(own_cgroup) == had


@pytest.fixture
def own_cgroup() -> Iterator[GroupId]:
    from npuops.hostsched.group_knobs import mounts, write_native  # noqa: PLC0415

    for kind, mount in mounts().items():
        folder = mount.point / f"npuops-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError as error:
            pytest.skip(f"a cgroup cannot be made: {error}")
        try:
            group = GroupId(kind, f"/{folder.name}")
            write_native(group, 777)
            yield group
        finally:
            folder.rmdir()
        return
    pytest.skip("no cgroup tree with a cpu controller")


def test_what_a_task_had_stands_in_the_file_before_its_first_change(tmp_path: Path) -> None:
    need_privilege()
    seen: list[tuple[Setting, Setting]] = []

    class Watched(Actuator):
        def _write(self, write, report):  # type: ignore[no-untyped-def]
            [path] = lease_files(tmp_path)
            lease = read_lease_file(path).leases.tasks[write.id]
            seen.append((read_setting(write.id.tid), lease.original.setting()))
            super()._write(write, report)

    with child() as one, Watched(tmp_path, timeout_ms=PATIENT_MS) as actuator:
        actuator.apply(orders({one.id: DEMOTED}))
    assert seen[0] == (DEFAULT, DEFAULT)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of four pages."""
    need_privilege()
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "none", place], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("a small tmpfs cannot be mounted (CAP_SYS_ADMIN)")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_without_room_for_the_lease_nothing_is_changed_and_what_was_is_put_back(small: Path) -> None:
    with child() as one, child() as two, Actuator(small, timeout_ms=PATIENT_MS) as actuator:
        actuator.apply(orders({one.id: DEMOTED}))
        fill(small / "rubbish")
        applied = Applied()
        for nice in range(1, 19):  # until the last page of the lease file is full
            applied = actuator.apply(orders({one.id: DEMOTED, two.id: Setting(nice=nice)}))
        for nice in range(600):
            applied = actuator.apply(orders({one.id: DEMOTED, two.id: Setting(nice=nice % 19, slice_us=500 + nice)}))
            if applied.denied:
                break
        assert "no lease" in rules(applied)
        before = two.setting
        assert actuator.apply(orders({one.id: DEMOTED, two.id: Setting(nice=-7)})).changed == ()
        assert two.setting == before
        actuator.apply(orders())
        assert (one.setting, two.setting) == (DEFAULT, DEFAULT)


def test_on_a_full_disk_no_agent_begins_and_it_says_what_to_do(small: Path) -> None:
    fill(small / "rubbish")
    with pytest.raises(StorageError, match="No space left") as refused:
        Actuator(small, timeout_ms=PATIENT_MS)
    assert "--leases" in refused.value.advice


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_two_agents_of_a_user_do_not_act_at_once(tmp_path: Path) -> None:
    with Actuator(tmp_path, timeout_ms=PATIENT_MS), pytest.raises(UsageError, match="another npuops hostsched acts"):
        Actuator(tmp_path)
    with Actuator(tmp_path, timeout_ms=PATIENT_MS):
        pass


def test_nothing_is_left_after_the_end(actuator: Actuator, tmp_path: Path) -> None:
    with child() as one:
        actuator.apply(orders({one.id: DEMOTED}))
        assert len(lease_files(tmp_path)) == 1
        actuator.close()
        actuator.close()
        assert lease_files(tmp_path) == []


def test_when_the_reaper_dies_everything_is_put_back_and_another_one_watches(actuator: Actuator) -> None:
    with child() as one:
        actuator.apply(orders({one.id: DEMOTED}))
        first = actuator.reaper_pid
        os.kill(first, signal.SIGKILL)
        eventually(lambda: bool(actuator.apply(orders({one.id: DEMOTED})).revoked))
        assert one.setting == DEFAULT
        assert actuator.reaper_pid != first
        assert actuator.apply(orders({one.id: DEMOTED})).revoked == ""
        assert one.setting == DEMOTED


def test_an_agent_whose_heartbeat_was_late_learns_of_it_before_it_acts_again(tmp_path: Path) -> None:
    need_privilege()
    with child() as one, Actuator(tmp_path, timeout_ms=100) as actuator:
        actuator.apply(orders({one.id: DEMOTED}))
        eventually(lambda: one.setting == DEFAULT, "the reaper puts back what a silent agent changed")
        applied = actuator.apply(orders({one.id: DEMOTED}))
        assert "heartbeat was late" in applied.revoked
        assert one.setting == DEFAULT
        eventually(lambda: actuator.apply(orders({one.id: DEMOTED})).revoked == "" and one.setting == DEMOTED)


UNPRIVILEGED = """
import sys
from pathlib import Path
from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.hostsched.actuate import Actuator
from npuops.hostsched.group_knobs import autogroup_of
from hostsched_children import child, orders
with child() as one, Actuator(Path(sys.argv[1]), timeout_ms=60_000) as actuator:
    for setting in (Setting(nice=19), Setting(SchedPolicy.IDLE), Setting(nice=-5)):
        applied = actuator.apply(orders({one.id: setting}))
        print([denial.rule for denial in applied.denied], one.setting)
    print(actuator.apply(orders({one.id: Setting(SchedPolicy.BATCH, 0)})).denied, one.setting)
    group = autogroup_of(one.pid)
    if group is not None:
        while autogroup_of(one.pid)[1] != 19:  # the kernel takes one change each 100 ms from all users together
            actuator.apply(orders({one.id: None}, {group[0]: 19}))
        print(autogroup_of(one.pid)[1])
        actuator.close()
        print(autogroup_of(one.pid)[1], one.setting)
"""


def test_without_privilege_nothing_is_lowered_that_could_not_be_raised_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [*without_privilege(), sys.executable, "-c", UNPRIVILEGED, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        "['no way back'] nice 0",
        "['no way back'] nice 0",
        "['the kernel'] nice 0",
        "() batch, nice 0",
    ]
    assert lines[4:] in ([], ["19", "0 nice 0"])
