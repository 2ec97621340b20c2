"""What a setting becomes for the kernel, what children inherit of it, and what there is no way back from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.errors import OptionError
from npuops.hostsched.attributes import RESET_ON_FORK, Attributes, inherited, kept_from_children, no_way_back, wanted

FAIR = st.builds(
    Setting,
    policy=st.sampled_from([SchedPolicy.OTHER, SchedPolicy.BATCH]),
    nice=st.integers(-20, 19),
    slice_us=st.none() | st.integers(100, 100_000),
    reset_on_fork=st.booleans(),
)


@given(FAIR)
def test_a_fair_setting_survives_the_way_to_the_kernel_and_back(setting: Setting) -> None:
    assert wanted(setting).setting() == setting


@given(st.integers(1, 1000), st.integers(1000, 100_000))
def test_a_reservation_survives_and_resets_its_children(runtime_us: int, period_us: int) -> None:
    setting = Setting(SchedPolicy.DEADLINE, runtime_us=runtime_us, period_us=period_us)
    there = wanted(setting)
    assert (there.setting().share, there.flags) == (setting.share, RESET_ON_FORK)
    assert inherited(there) == Attributes()


@given(FAIR)
def test_an_idle_task_keeps_its_nice_value(before: Setting) -> None:
    assert wanted(Setting(SchedPolicy.IDLE), wanted(before)).nice == before.nice


@given(FAIR)
def test_children_inherit_unless_they_are_reset(setting: Setting) -> None:
    parent = wanted(setting)
    child = inherited(parent)
    assert child == parent if not setting.reset_on_fork else (child.nice, child.flags) == (max(setting.nice, 0), 0)


@given(FAIR, FAIR)
def test_what_is_kept_from_children_changes_nothing_for_the_task_itself(setting: Setting, before: Setting) -> None:
    original = wanted(before)
    target = wanted(setting, original)
    kept = kept_from_children(target, original)
    assert replace(kept, flags=target.flags) == target
    assert kept == target or inherited(kept) == inherited(original)


@given(st.integers(-20, 0), st.none() | st.integers(100, 100_000))
def test_no_boost_of_an_ordinary_task_reaches_its_children(nice: int, slice_us: int | None) -> None:
    kept = kept_from_children(wanted(Setting(nice=nice, slice_us=slice_us)), Attributes())
    assert inherited(kept) == Attributes()


@given(st.integers(1, 19))
def test_what_lowers_is_inherited_whatever_is_asked(nice: int) -> None:
    assert kept_from_children(Attributes(nice=nice), Attributes()) == Attributes(nice=nice)


@given(st.integers(-20, 19), st.integers(-20, 19), st.integers(0, 40))
def test_a_nice_value_goes_up_only_where_the_limit_of_the_task_lets_it_down_again(
    before: int, want: int, limit: int
) -> None:
    may_return = want <= before or limit >= 20 - before
    assert (no_way_back(Attributes(nice=before), Attributes(nice=want), limit) == "") == may_return


def test_without_privilege_nobody_idles_or_reserves() -> None:
    assert no_way_back(Attributes(), Attributes(SchedPolicy.IDLE), 0)
    assert not no_way_back(Attributes(), Attributes(SchedPolicy.IDLE), 20)
    assert no_way_back(Attributes(), Attributes(SchedPolicy.DEADLINE, RESET_ON_FORK), 40)
    assert not no_way_back(Attributes(), Attributes(SchedPolicy.BATCH, runtime_ns=500_000), 0)


def test_a_policy_of_a_later_kernel_is_told_by_its_number() -> None:
    unknown = Attributes(policy=42)
    assert str(unknown) == "scheduling policy 42"
    with pytest.raises(OptionError, match="policy 42"):
        unknown.setting()
