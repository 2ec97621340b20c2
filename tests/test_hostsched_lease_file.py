"""The journal: whatever is cut off, what is whole is read; whatever is wrong is told."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import IntegrityError, StorageError
from npuops.hostsched.attributes import Attributes
from npuops.hostsched.lease_file import (
    Given,
    GroupClaimed,
    LeaseFile,
    LetGo,
    TaskClaimed,
    boot_id,
    read_lease_file,
    runtime_folder,
)
from npuops.hostsched.leases import GroupLease, TaskLease
from npuops.hostsched.task_id import GroupId, TaskId

AGENT = TaskId(4711, 815)
TASK = TaskId(12, 34)
GROUP = GroupId("cgroup1", "/a b/\udcff")


def lease(task: TaskId = TASK) -> TaskLease:
    return TaskLease(task, TaskId(11, 33), 10, 99, Attributes(nice=3, runtime_ns=123_456_789), 50_000)


def written(folder: Path) -> LeaseFile:
    file = LeaseFile(folder, AGENT)
    file.note([TaskClaimed(lease()), Given(TASK, Attributes(nice=19))])
    file.note([GroupClaimed(GroupLease(GROUP, 777)), Given(GROUP, 15), Given(GROUP, 15)])
    return file


def test_what_is_noted_is_read(tmp_path: Path) -> None:
    file = written(tmp_path)
    record = read_lease_file(file.path)
    assert (record.agent, record.boot, record.torn) == (AGENT, boot_id(), False)
    assert record.leases == file.leases
    assert record.leases.groups[GROUP] == GroupLease(GROUP, 777, [15])
    assert record.leases.tasks[TASK].original.runtime_ns == 123_456_789
    file.note([LetGo(TASK), LetGo(GROUP)])
    assert not read_lease_file(file.path).leases
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_only_this_user_may_read_it(tmp_path: Path) -> None:
    assert written(tmp_path).path.stat().st_mode & 0o777 == 0o600


def test_cut_off_at_any_byte_everything_before_is_read(tmp_path: Path) -> None:
    file = written(tmp_path)
    data = file.path.read_bytes()
    file.close()
    ends = [place + 1 for place, byte in enumerate(data) if byte == ord("\n")]
    for size in range(ends[0], len(data) + 1):
        file.path.write_bytes(data[:size])
        record = read_lease_file(file.path)
        whole = sum(1 for end in ends if end <= size) - 1
        assert record.torn == (size not in ends)
        assert (TASK in record.leases.tasks, GROUP in record.leases.groups) == (whole >= 1, whole >= 3)
        if whole >= 2:
            assert record.leases.tasks[TASK].given == [Attributes(nice=19)]


def test_a_flipped_bit_hides_no_line_before_it_and_is_told(tmp_path: Path) -> None:
    file = written(tmp_path)
    data = bytearray(file.path.read_bytes())
    file.close()
    data[-5] ^= 1
    file.path.write_bytes(data)
    record = read_lease_file(file.path)
    assert record.torn
    assert GROUP in record.leases.groups


@given(st.binary(max_size=200))
def test_rubbish_is_told(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("rubbish") / "hostsched-1-1.leases"
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        read_lease_file(path)


@pytest.mark.parametrize("first", [["leases", 1, "x", 2, "b"], ["leases", 1, 1, None, "b"], ["leases", 1], 3, None])
def test_a_first_line_that_is_none_of_ours_is_told(first: object, tmp_path: Path) -> None:
    text = json.dumps(first).encode()
    (tmp_path / "hostsched-1-2.leases").write_bytes(b"%08x %b\n" % (zlib.crc32(text), text))
    with pytest.raises(IntegrityError):
        read_lease_file(tmp_path / "hostsched-1-2.leases")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    file = written(tmp_path)
    link = tmp_path / "hostsched-1-2.leases"
    link.symlink_to(file.path)
    with pytest.raises(OSError, match="symbolic"):
        read_lease_file(link)


def test_a_file_of_another_user_is_not_believed(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away (CAP_CHOWN)")
    file = written(tmp_path)
    os.chown(file.path, 65534, 65534)
    with pytest.raises(IntegrityError, match="not a file of this user"):
        read_lease_file(file.path)


def test_it_does_not_grow_without_end_and_loses_nothing(tmp_path: Path) -> None:
    file = LeaseFile(tmp_path, AGENT, compact_at=4096)
    file.note([TaskClaimed(lease())])
    for number in range(500):
        other = TaskId(1000 + number, number)
        file.note([TaskClaimed(lease(other)), Given(other, Attributes(nice=5))])
        file.note([Given(TASK, Attributes(nice=number % 7))])
        file.note([LetGo(other)])
        assert read_lease_file(file.path).leases == file.leases
    assert file.path.stat().st_size < 8192


def test_a_folder_where_others_may_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        assert runtime_folder() == Path("/run/npuops")
        return
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_folder() == tmp_path / "npuops"
    (tmp_path / "npuops").chmod(0o777)
    with pytest.raises(StorageError, match="others may write"):
        runtime_folder()
