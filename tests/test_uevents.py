from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import device_trees
from npuops.devices.discovery import find_devices
from npuops.devices.tree import Tree
from npuops.devices.uevents import Missed, Uevent, UeventReader, parse_uevent
from npuops.devices.vnpu_tree import EVENT_LIMIT, EVENTS_KEPT


class Bench:
    """A virtual NPU's folder, and a reader that has looked once."""

    def __init__(self, root: Path) -> None:
        self.file = device_trees.vnpu(root) / "uevents"
        self.tree = Tree(root)
        self.reader = UeventReader(self.tree)
        self.says(1)
        assert self.poll() == []

    def says(self, *numbers: int, at_us: int = 5, end: str = "") -> None:
        lines = [f"{at_us} change SEQNUM={number} CE={number} UE=0\n" for number in numbers]
        self.file.write_text("".join(lines) + end, encoding="utf-8")

    def poll(self) -> list[int | str]:
        """Numbers of what is new, and how many were missed."""
        news = [event for _, event in self.reader.poll(find_devices(self.tree))]
        return [f"missed {each.count}" if isinstance(each, Missed) else each.seqnum for each in news]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_line_has_a_moment_an_action_a_number_and_fields() -> None:
    assert parse_uevent("741804 change SEQNUM=3 STATUS=hung WHY=a=b") == Uevent(
        seqnum=3, at_us=741804, action="change", fields={"STATUS": "hung", "WHY": "a=b"}
    )


@pytest.mark.parametrize("line", ["", "5", "5 change", "5 change SEQNUM=", "x change SEQNUM=1", "5 change SEQNUM=-1"])
def test_what_is_no_uevent_is_none(line: str) -> None:
    assert parse_uevent(line) is None


@given(st.text())
def test_garbage_never_raises_and_nothing_unprintable_comes_out(text: str) -> None:
    event = parse_uevent(f"5 change SEQNUM=1 WHY={text}")
    assert event is None or event.fields["WHY"].isprintable()
    parse_uevent(text)


def test_only_what_is_new_is_told_and_only_once(bench: Bench) -> None:
    bench.says(1, 2, 3)
    assert bench.poll() == [2, 3]
    assert bench.poll() == []


def test_a_reader_that_fell_behind_learns_how_many_lines_it_lost(bench: Bench) -> None:
    bench.says(40, 41)
    assert bench.poll() == ["missed 38", 40, 41]


def test_a_hole_inside_the_file_is_told_where_it_is(bench: Bench) -> None:
    bench.says(1, 2, 5, 6)
    assert bench.poll() == [2, "missed 2", 5, 6]


def test_a_line_without_its_end_is_left_for_the_next_look(bench: Bench) -> None:
    bench.says(1, end="6 change SEQNUM=2 CE")
    assert bench.poll() == []
    bench.says(1, 2)
    assert bench.poll() == [2]


def test_a_line_that_is_garbage_is_skipped(bench: Bench) -> None:
    bench.says(1, end="\x00\x1b[2J\nnonsense\n9 online SEQNUM=2 STATUS=online\n")
    assert bench.poll() == [2]


def test_an_empty_file_a_missing_one_and_a_huge_one_are_no_news_and_nothing_is_forgotten(bench: Bench) -> None:
    bench.says()
    assert bench.poll() == []
    bench.file.unlink()
    assert bench.poll() == []
    bench.file.write_bytes(b"x" * (EVENTS_KEPT * EVENT_LIMIT + 1))
    assert bench.poll() == []
    bench.file.unlink()
    os.mkfifo(bench.file)
    assert bench.poll() == []
    bench.file.unlink()
    bench.says(1, 2)
    assert bench.poll() == [2]


def test_another_daemon_in_the_same_place_is_told_from_its_beginning(bench: Bench) -> None:
    bench.says(1, 2, 3)
    bench.poll()
    bench.says(1, at_us=0)
    assert bench.poll() == [1]
    bench.says(1, 2, 3, 4, at_us=77)
    assert bench.poll() == [1, 2, 3, 4], "as many lines as before, but others"


def test_a_device_that_comes_back_is_followed_from_where_it_left(bench: Bench) -> None:
    aside = bench.file.parent.parent.rename(bench.tree.root / "aside")
    assert bench.poll() == []
    aside.rename(bench.file.parent.parent)
    bench.says(1, 2, 3)
    assert bench.poll() == [2, 3]


def test_a_device_that_comes_later_is_told_whole_and_real_ones_have_nothing_to_tell(tmp_path: Path) -> None:
    device_trees.ivpu_old(tmp_path)
    tree = Tree(tmp_path)
    reader = UeventReader(tree)
    assert reader.poll(find_devices(tree)) == []
    device = device_trees.vnpu(tmp_path / "sys", number=1)
    device_trees.write(device, {"uevents": "0 add SEQNUM=1 DRIVER=vnpu\n1 online SEQNUM=2 STATUS=online"})
    told = [(found.name, event) for found, event in reader.poll(find_devices(tree))]
    assert [(name, event.seqnum) for name, event in told if isinstance(event, Uevent)] == [("accel1", 1), ("accel1", 2)]


def test_what_it_remembers_is_bounded(tmp_path: Path) -> None:
    device = device_trees.vnpu(tmp_path)
    device_trees.write(device, {"uevents": "0 add SEQNUM=1 DRIVER=vnpu"})
    tree = Tree(tmp_path)
    reader = UeventReader(tree)
    for number in range(1000):
        device_trees.write(device, {"uevent": f"DRIVER=vnpu\nVNPU_NAME=own-{number}"})
        reader.poll(find_devices(tree))
    assert len(reader._last) <= 256 + 1, "those away, and the one that is here"


def test_many_devices_at_once_are_told_once_each(tmp_path: Path) -> None:
    for number in range(300):
        device_trees.vnpu(tmp_path, number=number)
    tree = Tree(tmp_path)
    reader = UeventReader(tree)
    reader.poll(())
    devices = find_devices(tree)
    assert len(reader.poll(devices)) == 300
    assert reader.poll(devices) == []
