"""Files of /proc, kept open or not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostsched_sleeper import sleeper
from npuops.hostsched.knobs import KnobError
from npuops.hostsched.proc_files import Descriptors, KeptFile


def test_a_file_is_opened_once_and_read_from_its_beginning_each_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    descriptors = Descriptors(4)
    file = KeptFile(str(path), descriptors)
    assert descriptors.kept == 0
    assert file.read(10) == b"one"
    assert descriptors.kept == 1
    path.write_bytes(b"other")
    assert file.read(10) == b"other"
    file.close()
    assert descriptors.kept == 0
    assert file.read(3) == b"oth"
    descriptors.close()
    assert descriptors.kept == 0


def test_beyond_its_number_it_reads_without_keeping(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    descriptors = Descriptors(1)
    files = [KeptFile(str(path), descriptors) for _ in range(3)]
    assert [file.read(9) for file in files * 2] == [b"one"] * 6
    assert descriptors.kept == 1
    descriptors.close()


@pytest.mark.parametrize("most", [0, 9])
def test_of_a_task_that_ended_there_is_nothing(most: int) -> None:
    descriptors = Descriptors(most)
    with sleeper() as one:
        file = KeptFile(f"{one.folder}/schedstat", descriptors)
        assert file.read(96)
        one.end()
        assert file.read(96) is None
        assert file.read(96) is None
    assert descriptors.kept == 0
    assert KeptFile("/proc/absent/schedstat", descriptors).read(9) is None


def test_what_may_not_be_read_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(KnobError, match=f"{tmp_path} cannot be read"):
        KeptFile(str(tmp_path), Descriptors(4)).read(9)


def test_making_room_closes_half() -> None:
    descriptors = Descriptors(8)
    files = [KeptFile("/proc/self/schedstat", descriptors) for _ in range(6)]
    assert all(file.read(9) for file in files)
    assert descriptors.make_room()
    assert descriptors.kept == 3
    assert all(file.read(9) for file in files)
    assert descriptors.kept == 3
    descriptors.close()
    assert not descriptors.make_room()


def test_by_default_it_leaves_descriptors_to_others() -> None:
    descriptors = Descriptors()
    file = KeptFile(f"/proc/{os.getpid()}/schedstat", descriptors)
    assert file.read(96)
    assert descriptors.kept == 1
    descriptors.close()
