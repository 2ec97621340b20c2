"""Weights of groups: the kernel's own table, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostsched_children import child
from npuops.hostsched.group_knobs import autogroup_of, native_of_nice, nice_of_native, read_group_nice, read_native
from npuops.hostsched.knobs import NoSuchKnobError, TaskGoneError
from npuops.hostsched.task_id import GroupId


@given(st.sampled_from(["autogroup", "cgroup1", "cgroup2"]), st.integers(-20, 19))
def test_a_nice_value_survives_as_shares_or_weight(kind: str, nice: int) -> None:
    assert abs(nice_of_native(kind, native_of_nice(kind, nice)) - nice) <= (1 if kind == "cgroup2" and nice > 10 else 0)


def test_nice_0_is_what_a_new_cgroup_has() -> None:
    assert (native_of_nice("cgroup1", 0), native_of_nice("cgroup2", 0)) == (1024, 100)


def test_an_autogroup_is_found_by_any_of_its_processes() -> None:
    with child() as one:
        found = autogroup_of(one.pid)
        if found is None:
            pytest.skip("this kernel makes no autogroups")
        assert autogroup_of(one.make("child").tid) == found
        Path(f"/proc/{one.pid}/autogroup").write_text("4")
        assert read_native(found[0]) == read_group_nice(found[0], one.pid) == 4
    with pytest.raises(TaskGoneError):
        read_native(found[0])


@pytest.mark.parametrize("name", ["/", "/../outside", "relative"])
def test_a_cgroup_that_has_no_weight_or_is_not_ours_is_refused(name: str) -> None:
    with pytest.raises(NoSuchKnobError):
        read_native(GroupId("cgroup1", name))
