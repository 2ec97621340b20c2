"""Leftovers of dead agents: only theirs, only what is still ours, and never a file that is in use."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

from hostsched_children import child, need_privilege, task_id
from npuops.eevdf.setting import DEFAULT, Setting
from npuops.hostsched.attributes import Attributes
from npuops.hostsched.knobs import write_setting
from npuops.hostsched.lease_file import Given, LeaseFile, TaskClaimed, boot_id
from npuops.hostsched.leases import TaskLease
from npuops.hostsched.restore import restore_leftovers
from npuops.hostsched.task_id import TaskId

DEAD = TaskId(1, 4_000_000_000)


def left_by(agent: TaskId, folder: Path, task: TaskId, process: TaskId) -> Path:
    file = LeaseFile(folder, agent)
    lease = TaskLease(task, process, process.tid, 0, Attributes())
    file.note([TaskClaimed(lease), Given(task, Attributes(nice=19))])
    file.close()
    return file.path


def test_what_a_dead_agent_left_is_put_back_and_its_file_removed(tmp_path: Path) -> None:
    need_privilege()
    with child() as one:
        path = left_by(DEAD, tmp_path, one.id, one.id)
        write_setting(one.pid, Setting(nice=19))
        (tmp_path / "hostsched-1-4000000000.new").write_bytes(b"half")
        [leftover] = restore_leftovers(tmp_path)
        assert (leftover.agent, leftover.back, one.setting) == (DEAD, (one.id,), DEFAULT)
        assert list(path.parent.iterdir()) == []


def test_a_living_agent_is_left_alone(tmp_path: Path) -> None:
    with child() as one:
        path = left_by(task_id(os.getpid()), tmp_path, one.id, one.id)
        write_setting(one.pid, Setting(nice=19))
        [leftover] = restore_leftovers(tmp_path)
        assert (leftover.alive, one.setting.nice, path.exists()) == (True, 19, True)


def test_a_number_that_was_given_to_another_task_is_left_alone(tmp_path: Path) -> None:
    with child() as one:
        former = TaskId(one.pid, one.id.start_ticks - 1)
        left_by(DEAD, tmp_path, former, former)
        write_setting(one.pid, Setting(nice=19))
        [leftover] = restore_leftovers(tmp_path)
        assert (leftover.back, one.setting.nice) == ((), 19)


def test_what_somebody_else_set_is_left_alone_and_told(tmp_path: Path) -> None:
    with child() as one:
        left_by(DEAD, tmp_path, one.id, one.id)
        write_setting(one.pid, Setting(nice=7))
        [leftover] = restore_leftovers(tmp_path)
        assert ([denial.what for denial in leftover.theirs], one.setting.nice) == ([one.id], 7)


def test_a_file_of_another_boot_is_only_removed(tmp_path: Path) -> None:
    with child() as one:
        path = left_by(task_id(os.getpid()), tmp_path, one.id, one.id)
        write_setting(one.pid, Setting(nice=19))
        header, rest = path.read_bytes().split(b"\n", 1)

        row = json.loads(header.partition(b" ")[2])
        assert row[4] == boot_id()
        row[4] = "another"
        text = json.dumps(row, separators=(",", ":")).encode()
        path.write_bytes(b"%08x %b\n%b" % (zlib.crc32(text), text, rest))
        [leftover] = restore_leftovers(tmp_path)
        assert (leftover.back, one.setting.nice, path.exists()) == ((), 19, False)


def test_a_file_that_is_none_is_told_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "hostsched-1-1.leases"
    path.write_bytes(b"\0" * 100)
    [leftover] = restore_leftovers(tmp_path)
    assert "not a lease file" in leftover.problem
    assert path.exists()
