from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from npuops.runtime.fallback import Verdict
from npuops.runtime.job import NO_DEADLINE
from npuops.runtime.router import Candidate, Choice, choose, ranking, shard_key
from npuops.runtime.signature import Form

YES = Verdict(True, "it may")
NO = Verdict(False, "it may not")


def device(
    name: str,
    backlog_us: float = 0.0,
    run_us: float = 100.0,
    *,
    credits: int = 1,  # noqa: A002 - the field's word
    healthy: bool = True,
    fallback: bool = False,
) -> Candidate:
    return Candidate(name, healthy, fallback, credits, backlog_us, run_us)


def routed(
    *candidates: Candidate, verdict: Verdict = YES, deadline_us: int = NO_DEADLINE, preferred: tuple[str, ...] = ()
) -> Choice:
    return choose(candidates, 0, deadline_us, lambda: verdict, preferred)


def test_the_one_that_is_done_first_gets_it() -> None:
    assert routed(device("slow", run_us=500), device("fast", backlog_us=100)).device == "fast"


def test_of_equals_the_first_in_line_gets_it() -> None:
    assert routed(device("one"), device("two")).device == "one"


def test_a_fast_busy_device_is_waited_for_where_that_ends_sooner() -> None:
    slow, fast = device("cpu", run_us=9_000), device("npu", backlog_us=800, run_us=1_000, credits=0)
    assert routed(slow, fast) == Choice("npu", True, 1_800, "")
    assert routed(device("cpu", run_us=1_700), fast) == Choice("cpu", False, 1_700, "")


def test_a_sick_device_gets_nothing() -> None:
    assert routed(device("sick", healthy=False), device("well", run_us=9_000)).device == "well"
    assert routed(device("sick", healthy=False)) == Choice(None, False, 0.0, "no device is healthy")


def test_a_fallback_gets_what_nobody_else_can_if_it_may() -> None:
    sick, cpu = device("npu", healthy=False), device("cpu", fallback=True)
    assert routed(sick, cpu) == Choice("cpu", False, 100, "no other device is healthy; it may")
    assert routed(sick, cpu, verdict=NO) == Choice(None, False, 0.0, "only cpu is healthy, and it may not")


def test_a_fallback_takes_over_where_the_deadline_asks_for_it() -> None:
    busy, cpu = device("npu", backlog_us=5_000, credits=0), device("cpu", run_us=2_000, fallback=True)
    assert routed(busy, cpu, deadline_us=2_500).device == "cpu"
    assert routed(busy, cpu, deadline_us=2_500, verdict=NO) == Choice("npu", True, 5_100, "it may not")
    assert routed(busy, cpu, deadline_us=2_500, preferred=("npu",)).device == "cpu"
    assert routed(busy, cpu, deadline_us=1_000).device == "npu", "neither makes it"


def test_the_policy_is_not_asked_while_another_device_makes_the_deadline_however_slow_it_is() -> None:
    def asked() -> Verdict:
        raise AssertionError("nobody had to ask")

    slow, cpu = device("npu", backlog_us=5_000, run_us=9_000, credits=0), device("cpu", fallback=True)
    assert choose([slow, cpu], 0, NO_DEADLINE, asked).device == "npu"
    assert choose([slow, cpu], 0, 20_000, asked).device == "npu"


def test_a_shard_goes_to_its_device_while_that_makes_the_deadline() -> None:
    first, second = device("a", backlog_us=5_000), device("b")
    assert routed(first, second, preferred=("a", "b")).device == "a"
    assert routed(first, second, preferred=("a", "b"), deadline_us=1_000).device == "b"
    assert routed(device("a", healthy=False), second, preferred=("a", "b")).device == "b"


def test_a_shard_is_a_shape_or_a_parameter() -> None:
    form = Form(rows=2, shapes=((2, 7),), sizes=(56,), total_bytes=56, key=((7,),))
    assert shard_key("", form, {"user": 1}) == ""
    assert shard_key("shape", form, {}) == "((7,),)"
    assert shard_key("user", form, {"user": "eva"}) == "str:eva"
    assert shard_key("user", form, {"user": 1}) != shard_key("user", form, {"user": "1"})
    assert shard_key("user", form, {}) == ""


def test_keys_are_spread_over_the_devices() -> None:
    counts = Counter(ranking(f"user {index}", ("a", "b", "c"))[0] for index in range(3_000))
    assert all(850 <= count <= 1150 for count in counts.values())


def test_a_key_goes_where_it_always_went() -> None:
    assert ranking("user 7", ("a", "b", "c", "d")) == ("b", "d", "c", "a")


@given(st.text(max_size=20), st.sets(st.text(min_size=1, max_size=5), min_size=2, max_size=6), st.data())
def test_when_a_device_leaves_only_its_own_keys_move(key: str, devices: set[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(sorted(devices)))
    before = ranking(key, tuple(sorted(devices)))
    after = ranking(key, tuple(sorted(devices - {gone})))
    assert after == tuple(device for device in before if device != gone)


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        st.uuids().map(str),
        st.booleans(),
        st.booleans(),
        st.integers(0, 2),
        st.floats(0, 1e5),
        st.floats(1, 1e5),
    ),
    max_size=6,
)


@given(CANDIDATES, st.booleans(), st.one_of(st.just(NO_DEADLINE), st.integers(0, 200_000)))
def test_the_choice_is_healthy_allowed_and_no_other_own_device_is_done_sooner(
    candidates: list[Candidate], allowed: bool, deadline_us: int
) -> None:
    choice = routed(*candidates, verdict=YES if allowed else NO, deadline_us=deadline_us)
    own = [each for each in candidates if each.healthy and not each.fallback]
    if choice.device is None:
        assert not own
        assert not allowed or not any(each.healthy for each in candidates)
        return
    (chosen,) = (each for each in candidates if each.device == choice.device)
    assert chosen.healthy
    assert allowed or not chosen.fallback
    assert choice.wait == (chosen.credits == 0)
    if not chosen.fallback:
        assert all(chosen.done_us <= each.done_us for each in own)


def spilled(
    *candidates: Candidate, spill_us: float = 10_000, deadline_us: int = NO_DEADLINE, preferred: tuple[str, ...] = ()
) -> str | None:
    return choose(candidates, 0, deadline_us, lambda: NO, preferred, spill_us).device


def slow(**changes: float) -> Candidate:
    values = {"backlog_us": 0.0, "run_us": 5_000.0, "batch_us": 5_000.0, "work_us": 500_000.0, **changes}
    return Candidate("cpu", True, False, 1, **values)


def fast(work_us: float = 100_000.0, backlog_us: float = 800.0) -> Candidate:
    return Candidate("npu", True, False, 0, backlog_us, 1_000.0, 1_000.0, work_us)


def test_while_more_waits_than_the_best_device_works_off_meanwhile_an_idle_one_helps() -> None:
    assert spilled(fast(), slow(), spill_us=0) == "npu"
    assert spilled(fast(), slow()) == "cpu"


def test_a_spilled_request_is_late_by_what_is_allowed_at_most() -> None:
    assert spilled(fast(), slow(), spill_us=3_199) == "npu"
    assert spilled(fast(), slow(), spill_us=3_200) == "cpu"


def test_a_lone_request_and_those_that_the_best_device_answers_sooner_are_not_spilled() -> None:
    assert spilled(fast(work_us=1_000), slow()) == "npu"
    assert spilled(fast(work_us=4_000), slow()) == "npu"
    assert spilled(fast(work_us=4_200), slow()) == "cpu"


def test_nobody_is_spilled_past_its_deadline_to_a_busy_device_or_out_of_its_shard() -> None:
    assert spilled(fast(), slow(batch_us=6_000.0), deadline_us=5_999) == "npu"
    assert spilled(fast(), slow(batch_us=6_000.0), deadline_us=6_000) == "cpu"
    assert spilled(fast(), slow(backlog_us=1.0)) == "npu"
    assert spilled(fast(backlog_us=0.0), slow()) == "npu"
    assert spilled(fast(), slow(), preferred=("npu", "cpu")) == "npu"


TIMES = st.floats(0, 1e6)


@given(
    st.lists(st.tuples(TIMES, TIMES, TIMES, TIMES, st.integers(0, 2)), min_size=1, max_size=5),
    st.sampled_from([0.0, 1e3, 1e5]),
    st.sampled_from([10, 100_000, NO_DEADLINE]),
)
def test_a_spill_costs_a_request_no_more_than_it_says_and_never_its_deadline(
    times: list[tuple[float, float, float, float, int]], spill_us: float, deadline_us: int
) -> None:
    candidates = [
        Candidate(str(index), True, False, free, backlog_us, run_us, max(batch_us, run_us), work_us)
        for index, (backlog_us, run_us, batch_us, work_us, free) in enumerate(times)
    ]
    own = choose(candidates, 0, deadline_us, lambda: NO)
    found = choose(candidates, 0, deadline_us, lambda: NO, spill_us=spill_us)
    if found != own:
        assert spill_us
        assert not found.wait
        assert found.done_us <= min(own.done_us + spill_us, deadline_us)
