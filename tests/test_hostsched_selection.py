"""Who opts in, in words."""

from __future__ import annotations

import pytest

from npuops.errors import OptionError
from npuops.hostsched.selection import Selection


@pytest.mark.parametrize("wrong", [{"pids": (0,)}, {"children_of": (-4,)}, {"cgroups": ("batch",)}, {"cgroups": ("/",)},
                                   {"commands": ("*",)}, {"commands": ("",)}])  # fmt: skip
def test_what_would_select_nobody_or_everybody_is_refused(wrong: dict[str, tuple[object, ...]]) -> None:
    with pytest.raises(OptionError):
        Selection(**wrong)  # type: ignore[arg-type]


def test_a_cgroup_selects_itself_and_what_is_below_but_no_other_name() -> None:
    selection = Selection(cgroups=("/a/b",))
    assert selection.has_cgroup(("/", "/a/b"))
    assert selection.has_cgroup(("/a/b/c",))
    assert not selection.has_cgroup(("/a/bc", "/a"))


def test_a_command_is_known_by_the_kernels_name_its_path_or_the_last_part_of_it() -> None:
    selection = Selection(commands=("redis-*", "/opt/job"))
    assert selection.has_command("redis-server", "/usr/bin/redis-server")
    assert selection.has_command("main", "/usr/bin/redis-cli")
    assert selection.has_command("x", "/opt/job")
    assert not selection.has_command("job", "job")
    assert not Selection(pids=(3,)).has_command("", "")


def test_an_empty_selection_is_false() -> None:
    assert not Selection()
    assert Selection(pids=(3,))
