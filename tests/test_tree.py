from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npuops.devices.quantities import Absent
from npuops.devices.tree import TEXT_LIMIT, Tree
from npuops.errors import OptionError


def why(answer: object) -> str:
    assert isinstance(answer, Absent)
    return answer.why


def test_a_root_with_sys_is_a_machine_and_one_without_is_shaped_like_sys(tmp_path: Path) -> None:
    assert Tree(tmp_path).sys == tmp_path
    (tmp_path / "sys").mkdir()
    assert Tree(tmp_path).sys == tmp_path / "sys"


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        Tree(tmp_path / "absent")


def test_what_must_not_be_read_is_absent_with_the_reason(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    tree = Tree(root)
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    os.mkfifo(root / "pipe")
    (root / "huge").write_bytes(b"1" * (TEXT_LIMIT + 1))
    (root / "folder").mkdir()
    (tmp_path / "secret").write_text("1")
    (root / "out").symlink_to("../secret")
    assert why(tree.text(root / "a")) == "a circle of links"
    assert why(tree.text(root / "pipe")) == "not a regular file"
    assert why(tree.text(root / "huge")) == f"larger than {TEXT_LIMIT} bytes"
    assert why(tree.text(root / "folder")) == "not a regular file"
    assert why(tree.text(root / "out")) == "the link leads outside the root"
    assert tree.text(root / "gone") == Absent("No such file or directory", missing=True)


def test_an_endless_file_ends_at_the_limit() -> None:
    assert isinstance(Tree(Path("/")).text(Path("/dev/zero")), Absent)


def test_a_file_that_opens_but_gives_no_value_is_absent_and_not_missing() -> None:
    assert Tree(Path("/")).text(Path("/proc/self/mem")) == Absent("Input/output error")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else for a moment")
def test_a_file_that_only_root_may_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "reset_counter").write_text("1")
    (tmp_path / "reset_counter").chmod(0o400)
    tree = Tree(tmp_path)
    os.seteuid(65534)
    try:
        assert why(tree.text(tmp_path / "reset_counter")) == "permission denied; root may read it"
        assert not tree.exists(tmp_path / "reset_counter" / "below")
    finally:
        os.seteuid(0)


def test_names_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        (tmp_path / f"accel{number}").mkdir()
    (tmp_path / "other").mkdir()
    assert Tree(tmp_path).names(tmp_path, "accel[0-9]*") == ("accel0", "accel2", "accel10")
    assert Tree(tmp_path).names(tmp_path / "absent") == ()


def test_a_star_in_a_path_means_every_folder_that_fits(tmp_path: Path) -> None:
    for name in ("hwmon2", "hwmon11"):
        (tmp_path / "hwmon" / name).mkdir(parents=True)
    found = Tree(tmp_path).matches(tmp_path, "hwmon/hwmon*/temp1_input")
    assert [path.parent.name for path in found] == ["hwmon2", "hwmon11"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_words_are_safe_to_show_whatever_the_file_holds(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "vbnv").write_bytes(content)
    words = Tree(tmp_path).words(tmp_path / "vbnv")
    assert words is None or (words and "\x1b" not in words and "\n" not in words and len(words) <= 120)
