from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hostsched_frames import Actor, Stage
from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.hostsched.decision_words import level_changes
from npuops.hostsched.frame import GroupId, TaskId
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.levels import BOOST, DEMOTE, IDLE, LEVELS, RESERVE_50
from npuops.hostsched.orders import Standing, orders_for, voids
from npuops.hostsched.plan import NORMAL, Level, Orders, Plan

OURS = GroupId("autogroup", "7")
THEIRS = GroupId("autogroup", "8")


def stage_of(*groups: GroupId | None) -> Stage:
    stage = Stage(*(Actor(f"t{number}", group=group) for number, group in enumerate(groups)))
    stage.group_nices = {group: 0 for group in groups if group == OURS}
    return stage


def test_a_group_whose_tasks_share_a_level_is_set_as_a_whole_and_its_tasks_are_left_alone() -> None:
    stage = stage_of(OURS, OURS)
    orders = orders_for(Plan({stage.id("t0"): DEMOTE, stage.id("t1"): DEMOTE}), stage.frame())
    assert orders.groups == {OURS: 19}
    assert orders.tasks == {stage.id("t0"): None, stage.id("t1"): None}


def mixed(levels: Mapping[str, Level], **run_us: int) -> tuple[Orders, Stage]:
    """Orders for a session of these tasks, that ran so long so far."""
    stage = stage_of(*[OURS] * len(run_us))
    for actor, ran_us in zip(stage.actors, run_us.values(), strict=True):
        actor.does(run_us=ran_us)
    assert [actor.name for actor in stage.actors] == list(run_us)
    return orders_for(Plan({stage.id(name): level for name, level in levels.items()}), stage.frame()), stage


def test_a_group_is_raised_for_those_who_do_most_of_its_work_and_each_gets_its_own_inside() -> None:
    orders, stage = mixed({"t0": BOOST}, t0=900, t1=100, t2=0)
    assert orders.groups == {OURS: -10}
    assert orders.tasks == {stage.id("t0"): BOOST.setting, stage.id("t1"): None, stage.id("t2"): None}


def test_a_waiting_make_does_not_carry_its_compilers_past_another_session() -> None:
    make, stage = mixed({"t0": BOOST}, t0=20, t1=200, t2=200)
    assert make.groups == {OURS: None}
    assert make.tasks[stage.id("t0")] == BOOST.setting, "it still comes before its own children"


def test_nobody_who_is_lowered_rides_along_when_a_group_is_raised() -> None:
    orders, stage = mixed({"t0": BOOST, "t1": DEMOTE}, t0=900, t1=100)
    assert orders.groups == {OURS: None}
    assert orders.tasks == {stage.id("t0"): BOOST.setting, stage.id("t1"): DEMOTE.setting}


@given(
    st.lists(st.tuples(st.sampled_from([NORMAL, BOOST, DEMOTE, IDLE, RESERVE_50]), st.integers(0, 1000)), max_size=6)
)
def test_a_group_never_gets_more_than_its_best_and_less_only_when_all_are_lowered(
    given_levels: list[tuple[Level, int]],
) -> None:
    stage = stage_of(*[OURS] * len(given_levels))
    for actor, (_, ran_us) in zip(stage.actors, given_levels, strict=True):
        actor.does(run_us=ran_us)
    levels = {stage.id(f"t{number}"): level for number, (level, _) in enumerate(given_levels)}
    nice = orders_for(Plan(levels), stage.frame()).groups.get(OURS)
    nices = [level.group_nice or 0 for level, _ in given_levels if level is not RESERVE_50]
    assert (nice or 0) >= min(nices, default=0)
    low = [ran_us for level, ran_us in given_levels if (level.group_nice or 0) > 0]
    rest = [ran_us for level, ran_us in given_levels if (level.group_nice or 0) <= 0 and level is not RESERVE_50]
    assert ((nice or 0) > 0) == (bool(low) and (not rest or sum(low) >= max(20 * sum(rest), 1)))
    if (nice or 0) < 0:
        assert max(nices) <= 0


class Build:
    """A session in which `make` waits, and compilers come and go; another one in which somebody waits for answers."""

    def __init__(self) -> None:
        self.stage = stage_of(OURS)
        self.standing = Standing()
        self.made = 0
        self.order({})

    def order(self, levels: Mapping[str, Level], *, after_us: int = 135_000) -> Orders:
        self.stage.at_us += after_us
        return self.standing.orders(
            Plan({self.stage.id(name): level for name, level in levels.items()}), self.stage.frame()
        )

    def compile(self) -> str:
        """Those before ended; a new one is there."""
        self.made += 1
        self.stage.actors[1:] = [Actor(f"cc{self.made}", group=OURS)]
        return self.stage.actors[1].name

    def work(self, name: str, run_us: int) -> None:
        next(actor for actor in self.stage.actors if actor.name == name).does(run_us=run_us)

    def goes_on(self, rounds: int, levels: Mapping[str, Level] | None = None) -> list[int | None]:
        """Each compiler is normal at its first look and lowered at its second. Nice of the session, look by look."""
        nices = []
        for _ in range(rounds):
            one = self.compile()
            self.work("t0", 400)
            self.work(one, 40_000)
            nices.append(self.order(levels or {}).groups[OURS])
            self.work(one, 60_000)
            nices.append(self.order({**(levels or {}), one: DEMOTE}).groups[OURS])
        return nices


def test_a_build_stays_lowered_as_a_whole_while_its_compilers_come_and_go() -> None:
    build = Build()
    nices = build.goes_on(8)
    assert nices[0] is None, "nobody was lowered yet"
    assert nices[1:] == [19] * 15
    build.compile()
    assert build.order({}, after_us=300_000).groups == {OURS: 19}, "between two of them"
    assert build.order({}, after_us=300_000).groups == {OURS: None}, "nobody is lowered any more"


def test_who_is_lowered_with_its_session_is_left_alone_and_who_waits_there_comes_first_inside() -> None:
    build = Build()
    build.goes_on(4)
    one = build.compile()
    build.work(one, 50_000)
    orders = build.order({"t0": BOOST, one: DEMOTE})
    assert orders.groups == {OURS: 19}
    assert orders.tasks == {build.stage.id("t0"): BOOST.setting, build.stage.id(one): None}


def test_orders_end_also_when_nothing_else_happens() -> None:
    build = Build()
    build.goes_on(4)
    build.stage.actors[1:] = []
    assert build.order({}, after_us=10_000).groups == {OURS: 19}
    assert build.order({}, after_us=600_000).groups == {OURS: None}


def test_a_compiler_that_is_tried_does_not_bring_the_whole_build_back() -> None:
    build = Build()
    build.goes_on(4)
    tried, other = build.compile(), Actor("other", group=OURS)
    build.stage.actors.append(other)
    build.work(tried, 100_000)
    build.work("other", 100_000)
    assert build.order({tried: DEMOTE, "other": DEMOTE}).groups == {OURS: 19}
    build.work(tried, 100_000)
    assert build.order({"other": DEMOTE}, after_us=1_500_000).groups == {OURS: 19}
    build.work(tried, 100_000)
    assert build.order({"other": DEMOTE}, after_us=1_000_000).groups == {OURS: None}, "it stays what it is now"


def test_who_is_alone_in_its_session_is_tried_at_once() -> None:
    stage, standing = stage_of(OURS), Standing()
    stage.actors[0].does(run_us=500_000)
    assert standing.orders(Plan({stage.id("t0"): DEMOTE}), stage.frame()).groups == {OURS: 19}
    stage.at_us += 20_000
    assert standing.orders(Plan(), stage.frame()).groups == {OURS: None}


def test_a_session_in_which_somebody_else_works_too_is_not_lowered_with_its_build() -> None:
    build = Build()
    build.work("t0", 1_000_000)
    assert set(build.goes_on(4)) == {None}


def test_a_session_in_which_somebody_said_that_he_is_waited_for_is_not_lowered_with_its_build() -> None:
    build = Build()
    build.stage.actors[0].hint = Hint(at_us=1, kind=Kind.LATENCY)
    assert set(build.goes_on(4)) == {None}


def test_a_boosted_make_that_is_alone_for_a_moment_does_not_carry_the_session() -> None:
    build = Build()
    for number in range(8):
        build.work(build.compile(), 40_000)
        build.order({"t0": BOOST})
        build.stage.actors[1:] = []
        build.work("t0", 400)
        raised = build.order({"t0": BOOST}).groups[OURS]
        assert raised is None, number


def test_one_normal_task_keeps_its_group_where_it_was() -> None:
    stage = stage_of(OURS, OURS)
    orders = orders_for(Plan({stage.id("t0"): IDLE}), stage.frame())
    assert orders.groups == {OURS: None}
    assert orders.tasks[stage.id("t0")] == IDLE.setting


def test_a_reserved_task_is_outside_of_its_group_and_says_nothing_of_the_rest() -> None:
    stage = stage_of(OURS, OURS)
    orders = orders_for(Plan({stage.id("t0"): RESERVE_50, stage.id("t1"): DEMOTE}), stage.frame())
    assert orders.groups == {OURS: 19}
    assert orders.tasks == {stage.id("t0"): RESERVE_50.setting, stage.id("t1"): None}


def test_a_slice_is_a_tasks_own_also_where_its_group_is_set() -> None:
    stage = stage_of(OURS)
    level = Level("slow", Setting(nice=5, slice_us=10_000), group_nice=5)
    orders = orders_for(Plan({stage.id("t0"): level}), stage.frame())
    assert orders.groups == {OURS: 5}
    assert orders.tasks == {stage.id("t0"): level.setting}


def test_a_reservation_for_a_pinned_task_is_not_ordered_and_it_is_told() -> None:
    stage = Stage(Actor("t0", cpus=1))
    plan = Plan({stage.id("t0"): RESERVE_50})
    assert orders_for(plan, stage.frame()).tasks == {stage.id("t0"): None}
    assert "1 of 2 CPUs" in voids(plan, stage.frame())[0].why


def test_nice_in_a_group_that_is_not_ours_is_told_to_be_void_against_the_others() -> None:
    stage = stage_of(THEIRS, OURS)
    plan = Plan({stage.id("t0"): DEMOTE, stage.id("t1"): DEMOTE})
    told = voids(plan, stage.frame())
    assert [one.task for one in told] == [stage.id("t0")]
    assert "autogroup 8" in told[0].why


def test_without_groups_each_task_gets_its_own_setting() -> None:
    stage = stage_of(None, None)
    orders = orders_for(Plan({stage.id("t0"): DEMOTE}), stage.frame())
    assert orders.groups == {}
    assert orders.tasks == {stage.id("t0"): DEMOTE.setting, stage.id("t1"): None}


groups = st.sampled_from([OURS, THEIRS, GroupId("cgroup2", "/a"), None])


@given(st.lists(st.tuples(groups, st.sampled_from(LEVELS), st.integers(1, 2)), max_size=8), st.booleans())
def test_everybody_appears_and_foreign_groups_never_do(wishes, ours: bool) -> None:
    stage = Stage(*(Actor(f"t{number}", group=group, cpus=cpus) for number, (group, _, cpus) in enumerate(wishes)))
    stage.group_nices = {OURS: 0} if ours else {}
    levels = {stage.id(f"t{number}"): level for number, (_, level, _) in enumerate(wishes)}
    frame = stage.frame()
    orders = orders_for(Plan({**levels, TaskId(1, 1): BOOST}), frame)
    assert set(orders.tasks) == {task.id for task in frame.tasks}
    assert set(orders.groups) == set(frame.group_nices)
    for task in frame.tasks:
        setting = orders.tasks[task.id]
        assert setting in (None, levels[task.id].setting)
        if setting is not None and setting.policy is SchedPolicy.DEADLINE:
            assert task.cpus == frame.host.cpus
    assert orders_for(Plan(), frame).groups == dict.fromkeys(frame.group_nices)
    assert NORMAL.setting is None


def test_orders_that_stand_are_those_that_follow_and_stay_the_same_object() -> None:
    stage, standing = stage_of(None, None), Standing()
    frame = stage.frame()
    plan = Plan({frame.tasks[0].id: DEMOTE})
    first = standing.orders(plan, frame)
    later = replace(frame, at_us=frame.at_us + 1)
    assert standing.orders(Plan(dict(plan.levels)), later) is first
    other = Plan({frame.tasks[1].id: DEMOTE})
    assert standing.orders(other, later) == orders_for(other, later) != first
    fresh = stage.frame()
    assert standing.orders(other, fresh) == orders_for(other, fresh)
    fewer = replace(fresh, tasks=fresh.tasks[:1], counters=fresh.counters[:1], hints=fresh.hints[:1])
    assert standing.orders(plan, fewer) == orders_for(plan, fewer)


def test_people_are_told_what_a_level_cannot_do_in_a_group_that_not_all_tasks_share() -> None:
    stage = stage_of(OURS, THEIRS)
    told = list(level_changes(Plan(), Plan({stage.id("t0"): DEMOTE, stage.id("t1"): DEMOTE}), stage.frame()))
    assert [bool(change.void) for change in told] == [False, True]
    assert "not all tasks there opted in" in str(told[1])
