"""What rivals set: scripts know what each task is for, oracles what it does now."""

from __future__ import annotations

import pytest

from npuops.eevdf.mix import REST, Activity, Doing, Mix, Player
from npuops.eevdf.setting import DEFAULT, SchedPolicy, Setting
from npuops.errors import OptionError
from npuops.hostsched.plan import NORMAL
from npuops.schedlab import oracle
from npuops.schedlab.line_up import line_up
from npuops.schedlab.mixes import CONTROLS, HELD_OUT, by_name
from npuops.schedlab.rival_names import DEFAULT as DEFAULT_RIVAL
from npuops.schedlab.rival_names import NAMES
from npuops.schedlab.rivals import RESERVATION, Role, StaticRule, assigned, left_alone, level, reserved, role_of

SERVE = Activity(Doing.SERVE, work_us=100, gap_us=1000, slo_us=2000)
SCAN = Activity(Doing.SCAN)
CHAT = Activity(Doing.PIPE, work_us=30)
MIX = Mix(
    "m",
    (1000, 1000, 1000),
    (
        Player("A", (SERVE, SCAN, REST)),
        Player("H", (SCAN, SCAN, SCAN)),
        Player("P", (CHAT, REST, CHAT), peer="Q"),
        Player("Q", (CHAT, REST, CHAT), peer="P"),
    ),
)


def test_who_serves_once_is_an_app_and_who_only_chats_is_not() -> None:
    assert [role_of(player) for player in MIX.players] == [Role.APP, Role.BATCH, Role.CHAT, Role.CHAT]


def test_the_default_sets_nothing() -> None:
    assert assigned(MIX, left_alone(MIX, 0)).settings == (DEFAULT,) * 4


def test_a_static_rule_goes_by_what_tasks_are_for() -> None:
    rule = StaticRule(app=Setting(nice=-5), batch=Setting(nice=10))
    assert assigned(MIX, rule.levels(MIX)).settings == (Setting(nice=-5), Setting(nice=10), DEFAULT, DEFAULT)


def test_the_oracle_lowers_all_others_only_while_somebody_serves() -> None:
    names = [[one.name for one in oracle.others_last(MIX, phase)] for phase in range(3)]
    assert names == [["normal", "demote", "demote", "demote"], ["normal"] * 4, ["normal"] * 4]


def test_the_bound_puts_only_who_serves_now_before_everybody() -> None:
    assert [one.setting and one.setting.policy for one in oracle.serving_first(MIX, 0)] == [
        SchedPolicy.FIFO,
        None,
        None,
        None,
    ]
    assert oracle.serving_first(MIX, 1) == (NORMAL,) * 4


@pytest.mark.parametrize("name", [*HELD_OUT, *CONTROLS])
def test_reservations_never_are_more_than_the_kernel_admits(name: str) -> None:
    mix = by_name(name)
    found = assigned(mix, reserved(mix, 0)).settings
    assert sum(setting.share for setting in found) <= 0.95 * mix.cpus
    assert RESERVATION in found or not any(role_of(player) is Role.APP for player in mix.players)


def test_of_six_apps_three_get_a_reservation_on_two_cpus() -> None:
    mix = by_name("crowd")
    assert [setting.share for setting in assigned(mix, reserved(mix, 0)).settings] == [0.5] * 3 + [0.0] * 7


def test_a_session_of_its_own_gets_what_its_task_deserves() -> None:
    mix = by_name("sessions")
    levels = StaticRule(app=Setting(nice=-5), batch=Setting(SchedPolicy.IDLE)).levels(mix)
    assert assigned(mix, levels).groups == {0: -5, 1: -5, 2: 19, 3: 19, 4: 19}


def test_tasks_of_one_session_leave_it_as_it_is() -> None:
    assert assigned(MIX, oracle.others_last(MIX, 0)).groups == {}


def test_the_default_setting_is_no_level() -> None:
    assert level(DEFAULT) is NORMAL


def test_everybody_has_a_name_and_the_default_always_plays() -> None:
    assert tuple(rival.name for rival in line_up(("all",), {}, {})) == NAMES
    assert [rival.name for rival in line_up(("oracle",), {}, {})] == [DEFAULT_RIVAL, "oracle"]


def test_a_name_that_nobody_has_is_told_with_the_nearest_one() -> None:
    with pytest.raises(OptionError, match="orackle") as told:
        line_up(("orackle",), {}, {})
    assert "oracle" in (told.value.advice or "")
