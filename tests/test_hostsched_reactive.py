from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hostsched_frames import Actor, Stage
from npuops.eevdf.mix import Mix
from npuops.eevdf.rules import Rules
from npuops.eevdf.setting import Setting
from npuops.hostsched.features import Features
from npuops.hostsched.frame import TaskId
from npuops.hostsched.guard import Guard
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.hint_book import HintBook, Subject
from npuops.hostsched.hint_wire import Word
from npuops.hostsched.levels import BOOST, DEMOTE, IDLE, RESERVE_25, RESERVE_50
from npuops.hostsched.orders import orders_for
from npuops.hostsched.plan import Policy
from npuops.hostsched.reactive import Reactive
from npuops.hostsched.reactive_options import NAMES, ReactiveOptions, from_vector
from npuops.hostsched.static_policy import Default
from npuops.hostsched.task_life import NEXT, Happening, Role, after
from npuops.schedlab.mixes import by_name
from npuops.schedlab.simulated_host import SimulatedHost

APP, HOG, CHAT = "app", "hog", "chat"
PERIODS = [10_000, 20_000, 50_000, 100_000]


class Scene:
    """Runs the rule on a stage; the app serves, hogs compute, as a test says."""

    def __init__(self, *actors: Actor, period_us: int = 20_000, options: ReactiveOptions | None = None) -> None:
        self.stage = Stage(*actors)
        self.period_us = period_us
        self.rule = Reactive(options)
        self.levels: dict[str, str] = {}

    def actor(self, name: str) -> Actor:
        return next(actor for actor in self.stage.actors if actor.name == name)

    def serves(self, name: str = APP) -> None:
        count = max(self.period_us // 4000, 1)
        self.actor(name).does(run_us=500 * count, wait_us=100 * count, sleeps=count)

    def computes(self, name: str = HOG, share: float = 0.7) -> None:
        run_us = int(self.period_us * share)
        self.actor(name).does(run_us=run_us, wait_us=self.period_us - run_us, pushed=2)

    def look(self) -> dict[str, str]:
        plan = self.rule.decide(self.stage.look(self.period_us))
        assert set(plan.why) == set(plan.levels), "every level has its reason"
        names = {self.stage.id(actor.name): actor.name for actor in self.stage.actors}
        self.levels = {names[task]: level.name for task, level in plan.levels.items()}
        return self.levels

    def steps(self, length_us: int, *doings: str) -> list[dict[str, str]]:
        found = []
        for _ in range(max(length_us // self.period_us, 1)):
            for name in doings:
                self.serves(name) if name.startswith(APP) else self.computes(name)
            found.append(dict(self.look()))
        return found

    def role(self, name: str) -> Role:
        return self.rule.roles[[actor.name for actor in self.stage.actors].index(name)]


def told(kind: Kind, **words: int) -> Hint:
    return Hint(0, kind, **words)


@pytest.mark.parametrize("period_us", PERIODS)
def test_a_hog_is_lowered_when_somebody_interactive_appears_and_comes_back_when_it_leaves(period_us: int) -> None:
    scene = Scene(Actor(APP), Actor(HOG), period_us=period_us)
    assert scene.steps(400_000, HOG)[-1] == {}, "nobody is there whom it could delay"
    before = scene.steps(400_000, HOG, APP)
    assert before.count({HOG: DEMOTE.name}) >= len(before) // 2
    assert [step for step in scene.steps(3_000_000, HOG) if not step], "nobody is there any more"
    assert scene.levels == {}


@pytest.mark.parametrize("period_us", PERIODS)
def test_a_starved_interactive_task_that_looks_like_a_hog_is_found_by_a_probe(period_us: int) -> None:
    scene = Scene(Actor(APP), Actor("app2"), Actor(HOG), period_us=period_us)
    for _ in range(200_000 // period_us + 1):
        scene.serves()
        scene.computes("app2", 0.3)
        scene.computes(HOG)
        scene.look()
    assert scene.role("app2") in (Role.HOG, Role.PROBE)
    probed = False
    for _ in range(6_000_000 // period_us):
        scene.serves()
        scene.computes(HOG)
        free = "app2" not in scene.levels and scene.role("app2") is Role.PROBE
        probed |= free
        scene.serves("app2") if free else scene.computes("app2", 0.05)
        scene.look()
        if scene.role("app2") is Role.INTERACTIVE:
            break
    assert probed
    assert scene.role("app2") is Role.INTERACTIVE
    assert scene.levels.get("app2") in (None, BOOST.name)


def test_only_one_hog_is_probed_at_a_time_and_more_and_more_seldom() -> None:
    hogs = ["hog1", "hog2", "hog3"]
    scene = Scene(Actor(APP), *(Actor(name) for name in hogs), period_us=10_000)
    free = [[name for name in hogs if name not in step] for step in scene.steps(4_000_000, APP, *hogs)[20:]]
    assert all(len(step) <= 1 for step in free)
    first, last = (sum(map(len, part)) for part in (free[: len(free) // 2], free[len(free) // 2 :]))
    assert first > last > 0


def test_whoever_is_served_is_shielded_while_somebody_is_probed() -> None:
    scene = Scene(Actor(APP), Actor(HOG), period_us=10_000)
    steps = scene.steps(1_000_000, APP, HOG)[20:]
    assert {APP: BOOST.name} in steps
    assert all(step in ({HOG: DEMOTE.name}, {APP: BOOST.name}) for step in steps)


def test_who_hardly_runs_is_not_shielded_from_a_probe() -> None:
    scene, shielded = Scene(Actor(APP), Actor(HOG), Actor("timer")), set()
    for _ in range(150):
        scene.actor("timer").does(run_us=10, wait_us=0, sleeps=1)
        for levels in scene.steps(scene.period_us, HOG, APP):
            shielded |= {name for name, level in levels.items() if level == BOOST.name}
    assert scene.role("timer") is Role.INTERACTIVE
    assert shielded == {APP}, "a write and a way back for each of many timers cost more than they gain"


def test_a_chatty_pipe_that_is_said_to_be_background_is_lowered_and_never_probed() -> None:
    chat = Actor(CHAT, hint=told(Kind.BACKGROUND))
    scene = Scene(Actor(APP), chat)
    for _ in range(200):
        scene.serves()
        chat.does(run_us=6_000, wait_us=100, sleeps=180)
        scene.look()
        assert scene.stage.at_us < 1_100_000 or scene.levels == {CHAT: DEMOTE.name}


def test_chatter_that_nobody_told_about_is_left_alone_unless_that_is_asked_for() -> None:
    for options, wanted in ((ReactiveOptions(), {}), (ReactiveOptions(chatty_per_s=3000.0), {CHAT: DEMOTE.name})):
        scene = Scene(Actor(APP), Actor(CHAT), options=options)
        for _ in range(50):
            scene.serves()
            scene.actor(CHAT).does(run_us=6_000, wait_us=100, sleeps=180)
            scene.look()
        assert scene.levels == wanted


def test_a_latency_task_is_never_lowered_whatever_it_does() -> None:
    scene = Scene(Actor(APP), Actor("app2", hint=told(Kind.LATENCY)))
    for _ in range(100):
        scene.serves()
        scene.computes("app2", 0.9)
        assert scene.look().get("app2") in (None, BOOST.name)


def test_a_batch_task_is_lowered_before_it_showed_anything() -> None:
    scene = Scene(Actor(APP, hint=told(Kind.LATENCY)), Actor("job", hint=told(Kind.BATCH)))
    scene.look()
    scene.serves()
    scene.actor("job").does(run_us=100, sleeps=1)
    assert scene.look() == {"job": DEMOTE.name}


def answers(scene: Scene, late: float, steps: int, *, slo_us: int = 2000, cpu: float = 0.12) -> None:
    app = scene.actor(APP)
    for _ in range(steps):
        old = app.hint or told(Kind.LATENCY)
        served = old.served + 10
        app.hint = Hint(scene.stage.at_us, Kind.LATENCY, slo_us, None, 1, served, old.missed + round(10 * late))
        app.does(run_us=int(scene.period_us * cpu), sleeps=5)
        scene.computes(HOG)
        scene.look()


def test_late_answers_bring_a_reservation_and_idle_hogs_and_calm_takes_them_back() -> None:
    scene = Scene(Actor(APP, hint=told(Kind.LATENCY)), Actor(HOG))
    answers(scene, 0.0, 20)
    assert scene.levels == {HOG: DEMOTE.name}
    answers(scene, 0.5, 5)
    assert scene.levels == {APP: RESERVE_50.name, HOG: IDLE.name}
    scene.actor(APP).setting = RESERVE_50.setting or Setting()
    answers(scene, 0.0, 200)
    assert APP not in scene.levels


def test_a_lenient_slo_gets_the_smaller_reservation() -> None:
    scene = Scene(Actor(APP, hint=told(Kind.LATENCY)), Actor(HOG))
    answers(scene, 0.5, 10, slo_us=20_000)
    assert scene.levels[APP] == RESERVE_25.name


@pytest.mark.parametrize("why", ["pinned", "too big", "refused", "no room"])
def test_where_a_reservation_is_impossible_the_task_is_boosted(why: str) -> None:
    others = [Actor(f"app{number}", hint=told(Kind.LATENCY)) for number in range(2)] if why == "no room" else []
    scene = Scene(Actor(APP, cpus=1 if why == "pinned" else 2), Actor(HOG), *others)
    scene.stage.cpus = 1 if why == "no room" else 2
    for _ in range(30):
        for other in others:
            old = other.hint or told(Kind.LATENCY)
            other.hint = Hint(scene.stage.at_us, Kind.LATENCY, 2000, None, 1, old.served + 10, old.missed + 9)
            other.does(run_us=2000, sleeps=5)
            other.setting = RESERVE_50.setting or Setting()
        answers(scene, 0.5, 1, cpu=0.7 if why == "too big" else 0.12)
    assert scene.levels[APP] == BOOST.name


def test_a_request_that_is_nearly_late_is_reason_enough_and_an_old_word_is_none() -> None:
    """Slack runs down once: of 500 ms, half a second's SLO, 300 are left after 200, which is not urgent."""
    cases = ((10_000, 500, 0, BOOST.name), (10_000, 500, 2_000_000, None), (500_000, 500_000, 200_000, None))
    for slo_us, slack_us, age_us, wanted in (*cases, (500_000, 500_000, 450_000, BOOST.name)):
        scene, book, subject = Scene(Actor(APP), Actor(HOG)), HintBook(), Subject(TaskId(1, 1), whole=False)
        scene.stage.at_us = 10_000_000
        scene.look()
        now_us = scene.stage.at_us + scene.period_us
        word = Word(sent_us=now_us - age_us, kind=Kind.LATENCY, slo_us=slo_us, slack_us=slack_us, queued=1)
        book.note(subject, word, by=1, now_us=now_us - age_us)
        scene.actor(APP).hint = book.hints(now_us)[subject.task.tid]
        scene.serves()
        assert scene.look().get(APP) == wanted


def test_a_lowered_job_that_gets_next_to_nothing_is_let_run_for_a_while() -> None:
    scene = Scene(Actor(APP), Actor(HOG, hint=told(Kind.BATCH)))
    scene.stage.cpus = 1
    shares, levels = [], []
    for _ in range(400):
        scene.actor(APP).does(run_us=19_000 if HOG in scene.levels else 12_000, sleeps=20)
        shares.append(0.02 if HOG in scene.levels else 0.38)
        scene.computes(HOG, shares[-1])
        levels.append(HOG in scene.look())
    assert any(levels[100:])
    floor = ReactiveOptions().floor_share * 0.5
    assert floor * 0.9 < np.mean(shares[100:]) < floor * 1.4


def test_tasks_may_come_go_and_change_places() -> None:
    scene = Scene(Actor(APP), Actor(HOG))
    scene.steps(400_000, APP, HOG)
    scene.stage.actors.reverse()
    assert scene.steps(40_000, APP, HOG)[-1] == {HOG: DEMOTE.name}
    hog = scene.stage.actors.pop(0)
    assert scene.steps(40_000, APP)[-1] == {}
    scene.stage.actors.append(Actor(HOG, start=hog.start + 1))
    assert scene.look() == {}, "another task under the same number is unknown"


def test_a_host_without_tasks_gets_an_empty_plan() -> None:
    assert Scene().look() == {}


doing = st.tuples(
    st.integers(0, 100_000), st.integers(0, 2_000_000), st.integers(0, 500), st.integers(0, 50), st.booleans()
)
hints = st.one_of(
    st.none(),
    st.builds(
        Hint,
        st.integers(0, 5_000_000),
        st.sampled_from([None, *Kind]),
        st.sampled_from([None, 500, 2000, 50_000]),
        st.sampled_from([None, -5000, 0, 3000]),
        st.sampled_from([None, 0, 7]),
        st.integers(0, 1000),
        st.integers(0, 1000),
    ),
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.lists(doing, max_size=5), st.lists(hints, min_size=5, max_size=5)), max_size=25),
    st.lists(st.floats(0, 1), min_size=len(NAMES), max_size=len(NAMES)),
    st.lists(st.integers(-5_000, 200_000), min_size=25, max_size=25),
)
def test_whatever_happens_latency_tasks_are_not_lowered_and_every_level_has_a_reason(steps, vector, gaps) -> None:
    stage, rule = Stage(), Reactive(from_vector(vector))
    for (doings, said), gap_us in zip(steps, gaps, strict=False):
        kept = {actor.name: actor for actor in stage.actors}
        stage.actors = [kept.get(f"t{number}", Actor(f"t{number}")) for number in range(len(doings))]
        for actor, hint, (run_us, wait_us, sleeps, pushed, back) in zip(stage.actors, said, doings, strict=False):
            actor.hint = hint
            actor.does(run_us=-run_us if back else run_us, wait_us=wait_us, sleeps=sleeps, pushed=pushed)
        plan = rule.decide(stage.look(gap_us))
        assert set(plan.levels) == set(plan.why) <= {stage.id(actor.name) for actor in stage.actors}
        for actor in stage.actors:
            level = plan.levels.get(stage.id(actor.name))
            if actor.hint is not None and actor.hint.kind is Kind.LATENCY:
                assert level not in (DEMOTE, IDLE)
            if actor.hint is None or actor.hint.kind is not Kind.LATENCY:
                assert level not in (RESERVE_25, RESERVE_50)


def test_the_life_of_a_task_is_the_table_and_nothing_else_can_happen() -> None:
    assert [len(row) for row in NEXT] == [len(Happening)] * len(Role)
    assert after([Role.HOG], [Happening.DUE]) == [Role.PROBE]
    with pytest.raises(LookupError, match="OVER cannot happen to a task in role HOG"):
        after([Role.HOG], [Happening.OVER])


def looks_until_a_hog(options: ReactiveOptions, *, served_us: int) -> int:
    """How long a server that answered for so long may work off a queue."""
    scene = Scene(Actor(APP), Actor("app 2"), period_us=10_000, options=options)
    scene.steps(served_us, APP, "app 2")
    looks = 0
    while scene.role("app 2") is Role.INTERACTIVE:
        scene.serves(APP)
        scene.computes("app 2")
        scene.look()
        looks += 1
    assert scene.role("app 2") is Role.HOG
    return looks


def test_a_server_that_answered_may_work_off_a_queue_before_it_counts_as_a_hog() -> None:
    without = replace(ReactiveOptions(), credit_cap_us=0.0)
    assert looks_until_a_hog(ReactiveOptions(), served_us=500_000) > looks_until_a_hog(without, served_us=500_000)
    more = replace(ReactiveOptions(), credit_cap_us=100_000.0)
    assert looks_until_a_hog(more, served_us=500_000) > looks_until_a_hog(more, served_us=100_000)


def test_what_a_task_did_before_it_was_first_seen_counts_for_it_and_never_against_it() -> None:
    looks = {}
    for past in ("none", "served", "computed"):
        server = Actor("app 2")
        if past == "served":
            server.does(run_us=500_000, sleeps=1000)
        elif past == "computed":
            server.does(run_us=9_000_000, sleeps=1000)
        scene = Scene(Actor(APP), server, period_us=10_000)
        scene.steps(10_000, APP, APP)
        looks[past] = 0
        while scene.role("app 2") is not Role.HOG:
            scene.serves(APP)
            scene.computes("app 2")
            scene.look()
            looks[past] += 1
    assert looks["served"] > looks["none"] == looks["computed"]


def in_turn(work_us: int, rest_us: int, at_us: int) -> tuple[int, int]:
    """CPU time and sleeps until then of one that works and rests in turn."""
    cycles, into_us = divmod(at_us, work_us + rest_us)
    return cycles * work_us + min(into_us, work_us), cycles + (into_us >= work_us)


@settings(deadline=None, max_examples=200)
@given(
    work_us=st.integers(2_501, 20_000),
    rest_us=st.integers(100, 20_000),
    age_us=st.integers(0, 60_000),
    gaps_us=st.lists(st.integers(1_000, 150_000), min_size=1, max_size=12),
)
def test_who_works_long_between_any_two_sleeps_never_looks_interactive_wherever_the_looks_fall(
    work_us: int, rest_us: int, age_us: int, gaps_us: list[int]
) -> None:
    """A job of a build, seen just before and just after it waits for its next file, seems to do little."""
    scene = Scene(job := Actor("job"), options=ReactiveOptions(quiet_us=500_000.0))
    ran_us, sleeps = in_turn(work_us, rest_us, age_us)
    job.does(run_us=ran_us, sleeps=sleeps)
    scene.look()
    for gap_us in gaps_us:
        age_us += gap_us
        (before_us, slept), (ran_us, sleeps) = (ran_us, sleeps), in_turn(work_us, rest_us, age_us)
        job.does(run_us=ran_us - before_us, sleeps=sleeps - slept)
        scene.period_us = gap_us
        scene.look()
        assert scene.role("job") is not Role.INTERACTIVE


@pytest.mark.parametrize(("work_us", "wanted"), [(500, Role.INTERACTIVE), (5_000, Role.UNKNOWN)])
def test_who_was_interactive_stays_so_only_while_it_works_little_between_its_sleeps(work_us: int, wanted: Role) -> None:
    """A job that waited for its order before its work began is met asleep."""
    scene = Scene(job := Actor("job"), period_us=150_000)
    scene.look()
    job.does(run_us=30, sleeps=1)
    scene.look()
    assert scene.role("job") is Role.INTERACTIVE
    for _ in range(3):
        job.does(run_us=8 * work_us, wait_us=100_000, sleeps=8, pushed=8)
        scene.look()
    assert scene.role("job") is wanted


@pytest.mark.parametrize("period_us", PERIODS)
def test_who_works_little_between_two_sleeps_looks_interactive_at_the_third_look(period_us: int) -> None:
    scene = Scene(app := Actor(APP), period_us=period_us)
    for look in range(3):
        now, before = (in_turn(500, 3_500, max(look - past, 0) * period_us) for past in (0, 1))
        app.does(run_us=now[0] - before[0], sleeps=now[1] - before[1])
        scene.look()
    assert scene.role(APP) is Role.INTERACTIVE


def test_options_change_what_it_does() -> None:
    slow = replace(ReactiveOptions(), hog_burst_us=50_000.0)
    found = []
    for options in (ReactiveOptions(), slow):
        scene = Scene(Actor(APP), Actor(HOG), period_us=10_000, options=options)
        found.append([bool(step) for step in scene.steps(200_000, APP, HOG)].index(True))
    assert found[0] < found[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["four-phase", "four-phase-2", "cycles", "sessions"])
def test_with_hints_nine_of_ten_answers_are_in_time_where_the_default_has_half_and_no_job_starves(name: str) -> None:
    pytest.importorskip("numba", reason="the simulator takes minutes without numba")
    mix = by_name(name)
    in_time, progress = played(mix, Default())
    with_rule, with_progress = played(mix, Reactive())
    assert in_time < 0.5
    assert with_rule > 0.9
    jobs = progress > 0
    assert (with_progress[jobs] / progress[jobs]).min() > 0.5


def played(mix: Mix, policy: Policy) -> tuple[float, NDArray[np.int64]]:
    """Share of requests answered in time, and the progress of each job, of one simulated play under the guard."""
    host = SimulatedHost(mix, 1, Rules(), telling=[player.name for player in mix.players])
    features, guard = Features(), Guard()
    for at_us in range(20_000, mix.duration_us + 1, 20_000):
        host.run_until(at_us)
        state = features.update(host.frame())
        host.apply(orders_for(guard.check(state, policy.decide(state)).plan, state.frame))
    asked = in_time = 0
    starts = mix.starts_us()
    for number, player in enumerate(mix.players):
        arrived, done = host.simulation.answers(number)
        for phase, act in enumerate(player.acts):
            here = (arrived >= starts[phase] * 1000) & (arrived < starts[phase + 1] * 1000)
            asked += int(here.sum())
            in_time += int((here & (done >= 0) & (done - arrived <= act.slo_us * 1000)).sum())
    jobs = [number for number, player in enumerate(mix.players) if len({act.doing for act in player.acts}) == 1]
    return in_time / asked, np.array([host.simulation.progress(number) for number in jobs], np.int64)
