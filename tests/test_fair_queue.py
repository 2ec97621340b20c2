from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npuops.runtime.batch_curve import BatchCurve
from npuops.runtime.fair_queue import GUARD_ROWS, LOOK_AHEAD, FairQueue, bytes_of
from npuops.runtime.job import NO_DEADLINE, Job
from npuops.runtime.queue_lanes import PATIENCE_US, SAVED_ROWS
from npuops.runtime.signature import Form
from tenant_simulation import simulate


def ignore(job: Job, answer: object) -> None:
    del job, answer


def alike(tenant: str) -> float:
    del tenant
    return 1.0


FORMS: dict[tuple[int, int], Form] = {}


def form(rows: int = 1, width: int = 4) -> Form:
    if (rows, width) not in FORMS:
        FORMS[rows, width] = Form(
            rows=rows, shapes=((rows, width),), sizes=(rows * width,), total_bytes=rows * width, key=((width,),)
        )
    return FORMS[rows, width]


def job(
    tenant: str = "default",
    *,
    rows: int = 1,
    width: int = 4,
    priority: int = 0,
    deadline_us: int = NO_DEADLINE,
    arrived_us: int = 0,
) -> Job:
    return Job(
        form(rows, width),
        (bytes(rows * width),),
        ignore,
        arrived_us,
        tenant=tenant,
        priority=priority,
        deadline_us=deadline_us,
    )


def queue_of(jobs: Sequence[Job], weights: Callable[[str], float] = alike) -> FairQueue:
    queue = FairQueue(weights)
    for each in jobs:
        queue.push(each)
    return queue


def batch(queue: FairQueue, max_rows: int = 1) -> list[Job]:
    """As the engine takes one."""
    leader = queue.next()
    if leader is None:
        return []
    taken = queue.take(max(max_rows, leader.form.rows), leader.form.key)
    assert taken[0] is leader
    return taken


def emptied(queue: FairQueue, max_rows: int = 1) -> list[Job]:
    jobs: list[Job] = []
    while taken := batch(queue, max_rows):
        jobs += taken
    return jobs


def tenants(jobs: Sequence[Job]) -> str:
    return "".join(each.tenant for each in jobs)


def test_one_tenant_is_served_first_come_first_served() -> None:
    jobs = [job() for _ in range(5)]
    queue = queue_of(jobs)
    assert (len(queue), queue.rows, queue.bytes) == (5, 5, 20)
    assert queue.take(3, form().key) == jobs[:3]
    assert queue.next() is jobs[3]
    assert (len(queue), queue.rows, queue.bytes) == (2, 2, 8)
    assert emptied(queue) == jobs[3:]
    assert (queue.next(), len(queue), queue.rows, queue.bytes) == (None, 0, 0, 0)


def test_the_bytes_of_text_count() -> None:
    words = Form(rows=1, shapes=((1,), (1, 4)), sizes=(-1, 4), total_bytes=4, key=((), (4,)))
    text = Job(words, (memoryview(b"hello"), b"1234"), ignore, 0)
    queue = queue_of([text])
    assert (bytes_of(text), queue.bytes) == (9, 9)
    assert queue.take(1, words.key) == [text]
    assert queue.bytes == 0


def test_tenants_take_turns_and_a_late_one_does_not_wait_for_the_backlog() -> None:
    queue = queue_of([job("a") for _ in range(6)])
    assert tenants(batch(queue, 2)) == "aa"
    for _ in range(3):
        queue.push(job("b"))
    assert tenants(emptied(queue)) == "bbabaaa", "b has what a had while it was alone, then they take turns"


def test_what_a_tenant_got_while_nobody_else_waited_counts_as_its_share() -> None:
    queue = queue_of([each for _ in range(20) for each in (job("a"), job("b"))])
    assert tenants(batch(queue, 40)).count("b") == 20
    for _ in range(5):
        queue.push(job("a"))
        for _ in range(9):
            queue.push(job("a"))
            assert tenants(batch(queue)) == "a"
        for _ in range(3):
            queue.push(job("b"))
        assert tenants(batch(queue, 3)) == "bbb"
        assert tenants(emptied(queue)) == "a"


def test_a_weight_is_a_share_of_rows() -> None:
    queue = queue_of([job(tenant) for _ in range(40) for tenant in "ab"], {"a": 3.0, "b": 1.0}.__getitem__)
    assert Counter(tenants(batch(queue, 20))) == {"a": 15, "b": 5}


def test_shares_are_counted_in_rows_not_in_requests() -> None:
    queue = queue_of([job("a", rows=4) for _ in range(20)] + [job("b") for _ in range(80)])
    rows: Counter[str] = Counter()
    while sum(rows.values()) < 80:
        for each in batch(queue):
            rows[each.tenant] += each.form.rows
    assert abs(rows["a"] - rows["b"]) <= 5


def test_a_pause_saves_a_few_rows_up_and_no_more() -> None:
    queue = queue_of([job("a"), job("b")] + [job("a") for _ in range(60)])
    assert tenants(batch(queue, 32)).count("b") == 1
    for _ in range(30):
        queue.push(job("b"))
    assert "a" not in tenants(batch(queue, int(SAVED_ROWS)))
    assert tenants(batch(queue, 10)).count("a") >= 4


def test_an_earlier_deadline_overtakes_within_its_tenant_only() -> None:
    late, soon, other = job("a", deadline_us=900), job("a", deadline_us=300), job("b", deadline_us=100)
    queue = queue_of([late, soon, other])
    assert emptied(queue) == [soon, other, late]


def test_one_without_a_deadline_is_not_starved_by_those_with_one() -> None:
    patient = job(arrived_us=0)
    queue = queue_of([patient, job(arrived_us=0, deadline_us=500_000)])
    served = []
    for now_us in range(100_000, 3_000_000, 100_000):
        queue.push(job(arrived_us=now_us, deadline_us=now_us + 500_000))
        served += batch(queue)
    assert served[0] is not patient
    assert patient in served
    assert served[served.index(patient) - 1].deadline_us <= PATIENCE_US


def test_a_higher_class_goes_first_and_the_lower_one_gets_a_tenth() -> None:
    queue = queue_of([job("a", priority=0) for _ in range(100)] + [job("b", priority=1) for _ in range(100)])
    first = tenants(batch(queue, 60))
    assert first.startswith("a" * GUARD_ROWS)
    assert first.count("b") == 6
    assert tenants(emptied(queue)).endswith("b" * 80)


def test_three_classes_all_get_something() -> None:
    queue = queue_of([job(str(level), priority=level) for level in range(3) for _ in range(300)])
    served = Counter(tenants(batch(queue, 200)))
    assert served["0"] > 150
    assert served["1"] >= 15
    assert served["2"] >= 15


def test_a_priority_out_of_range_is_the_lowest_or_the_highest() -> None:
    queue = queue_of([job("low", priority=1 << 60), job("mid", priority=5), job("high", priority=-7)])
    assert [each.tenant for each in emptied(queue)] == ["high", "mid", "low"]


def test_other_shapes_are_skipped_and_lead_the_next_batch() -> None:
    narrow, wide, narrow_too = job(width=4), job(width=8), job(width=4)
    queue = queue_of([narrow, wide, narrow_too])
    assert batch(queue, 8) == [narrow, narrow_too]
    assert batch(queue, 8) == [wide]


def test_what_does_not_fit_is_skipped_and_leads_the_next_batch() -> None:
    one, big, two = job(), job(rows=4), job()
    queue = queue_of([one, big, two])
    assert batch(queue, 4) == [one, two]
    assert batch(queue, 4) == [big]


def test_skipping_is_bounded() -> None:
    jobs = [job(width=4), *(job(width=8) for _ in range(LOOK_AHEAD)), job(width=4)]
    queue = queue_of(jobs)
    assert batch(queue, 64) == jobs[:1]
    assert batch(queue, 64) == jobs[1:-1]
    assert batch(queue, 64) == jobs[-1:]


def test_what_nobody_waits_for_is_forgotten() -> None:
    jobs = [job(tenant) for tenant in "abcab"]
    queue = queue_of(jobs)
    for index in (0, 2, 4):
        jobs[index].cancelled = True
    assert sorted(tenants(emptied(queue, 8))) == ["a", "b"]
    assert (len(queue), queue.rows, queue.bytes) == (0, 0, 0)


def test_a_withdrawn_job_counts_no_longer() -> None:
    jobs = [job() for _ in range(500)]
    queue = queue_of(jobs)
    for each in jobs[:-1]:
        queue.withdraw(each)
    assert (len(queue), queue.rows, queue.bytes) == (1, 1, 4)
    assert emptied(queue, 8) == jobs[-1:]
    assert (len(queue), queue.rows, queue.bytes) == (0, 0, 0)


def test_who_is_not_in_the_queue_is_only_marked_when_withdrawn() -> None:
    gone, flagged, never, again = job(), job(), job("other"), job("again")
    queue = queue_of([gone, flagged, job()])
    assert batch(queue) == [gone]
    flagged.cancelled = True
    queue.push_front([again])
    assert [queue.withdraw(each) for each in (gone, flagged, never, again)] == [False, True, False, True]
    assert queue.withdraw(flagged) is False
    assert never.cancelled
    assert len(emptied(queue)) == 1
    assert (len(queue), queue.rows, queue.bytes) == (0, 0, 0)


def test_expired_jobs_come_out_once_and_alone() -> None:
    jobs = [job("a", deadline_us=due) for due in (500, 100, 300)] + [job("b", deadline_us=200), job("b")]
    queue = queue_of(jobs)
    assert queue.expire(99) == []
    assert {each.deadline_us for each in queue.expire(250)} == {100, 200}
    assert queue.expire(250) == []
    assert (len(queue), queue.rows) == (3, 3)
    assert {each.deadline_us for each in queue.expire(NO_DEADLINE - 1)} == {300, 500}
    assert emptied(queue) == [jobs[-1]]


def test_what_goes_again_goes_first_in_order_and_can_expire() -> None:
    jobs = [job("a", priority=3), job("b", deadline_us=50), job("c", width=8)]
    queue = queue_of([job("x")])
    queue.push_front(jobs)
    assert (len(queue), queue.rows) == (4, 4)
    assert queue.expire(60) == [jobs[1]]
    taken = batch(queue, 8)
    assert (taken[0], tenants(taken)) == (jobs[0], "ax")
    assert batch(queue, 8) == [jobs[2]]


def test_drain_gives_all_that_somebody_waits_for() -> None:
    jobs = [job("a"), job("b", priority=2), job("c", deadline_us=4), job("a")]
    queue = queue_of(jobs)
    queue.push_front([job("z")])
    jobs[0].cancelled = True
    assert sorted(tenants(queue.drain())) == ["a", "b", "c", "z"]
    assert (len(queue), queue.rows, queue.bytes, queue.next()) == (0, 0, 0, None)
    queue.push(jobs[3])
    assert batch(queue) == [jobs[3]]


def test_who_floods_a_full_queue_gives_its_last_place() -> None:
    flood = [job("a") for _ in range(9)]
    queue = queue_of([*flood, job("b")])
    assert queue.yield_to(job("a")) is None
    assert queue.yield_to(job("b")) is flood[-1]
    assert (len(queue), queue.rows) == (9, 9)
    assert queue.yield_to(job("new")) is flood[-2]
    assert queue_of([job(tenant) for tenant in "abcd"]).yield_to(job("new")) is None


def test_a_lower_class_gives_its_places_but_for_a_tenth() -> None:
    queue = queue_of([job("a", priority=0) for _ in range(10)] + [job("b", priority=1) for _ in range(10)])
    given = []
    while (gone := queue.yield_to(newcomer := job("a", priority=0))) is not None:
        queue.push(newcomer)
        given.append(gone)
    assert tenants(given) == "b" * 8
    assert queue.yield_to(job("b", priority=1)) is None


def test_a_class_with_less_than_a_tenth_gets_places_of_a_higher_one() -> None:
    queue = queue_of([job("a", priority=0) for _ in range(40)])
    given = []
    while (gone := queue.yield_to(newcomer := job("b", priority=1))) is not None:
        queue.push(newcomer)
        given.append(gone)
    assert tenants(given) == "aaaa"


def test_tenants_that_come_and_go_are_forgotten() -> None:
    queue = FairQueue(alike)
    for index in range(5_000):
        queue.push(job(f"t{index}"))
        queue.push(job("steady"))
        batch(queue, 2)
    emptied(queue, 64)
    assert sum(len(band.lanes) for band in queue._by_priority) < 600


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("push"),
            st.sampled_from("abc"),
            st.integers(0, 2),
            st.integers(1, 5),
            st.sampled_from([4, 8]),
            st.sampled_from([NO_DEADLINE, 50, 200, 1_000, 2_000_000]),
        ),
        st.tuples(st.just("take"), st.integers(1, 12)),
        st.tuples(st.just("cancel"), st.integers(0, 200), st.booleans()),
        st.tuples(st.just("expire")),
        st.tuples(st.just("retry"), st.integers(1, 4)),
        st.tuples(st.just("yield"), st.sampled_from("abcd"), st.integers(0, 2)),
    ),
    max_size=120,
)


@settings(max_examples=400, deadline=None)
@given(STEPS)
def test_every_job_comes_out_exactly_once_whatever_happens(steps: list[tuple[object, ...]]) -> None:
    queue = FairQueue({"a": 1.0, "b": 2.0, "c": 0.5, "d": 1.0}.__getitem__)
    waiting: list[Job] = []
    taken: list[Job] = []
    for now_us, step in enumerate(steps):
        match step:
            case ("push", str(tenant), int(priority), int(rows), int(width), int(after_us)):
                deadline_us = min(now_us + after_us, NO_DEADLINE)
                waiting.append(
                    job(tenant, rows=rows, width=width, priority=priority, deadline_us=deadline_us, arrived_us=now_us)
                )
                queue.push(waiting[-1])
            case ("take", int(max_rows)):
                got = batch(queue, max_rows)
                assert len({each.form.key for each in got}) <= 1
                assert len(got) == 1 or sum(each.form.rows for each in got) <= max_rows
                leave(waiting, got)
                taken = got
            case ("cancel", int(index), bool(at_once)) if waiting:
                gone = waiting[index % len(waiting)]
                if at_once and queue.withdraw(gone):
                    waiting.remove(gone)
                gone.cancelled = True
            case ("expire",):
                late = queue.expire(now_us)
                assert all(each.deadline_us <= now_us for each in late)
                leave(waiting, late)
                assert all(each.deadline_us > now_us or each.cancelled for each in waiting)
            case ("retry", int(count)):
                again, taken = taken[:count], []
                queue.push_front(again)
                waiting += again
            case ("yield", str(tenant), int(priority)):
                last = queue.yield_to(job(tenant, priority=priority))
                leave(waiting, [last] if last else [])
            case _:
                pass
        live = [each for each in waiting if not each.cancelled]
        assert len(live) <= len(queue) <= len(waiting)
        assert sum(each.form.rows for each in live) <= queue.rows
    rest = emptied(queue, 6)
    leave(waiting, rest)
    assert all(each.cancelled for each in waiting)
    assert (len(queue), queue.rows, queue.bytes) == (0, 0, 0)


def leave(waiting: list[Job], jobs: Sequence[Job]) -> None:
    for each in jobs:
        assert not each.cancelled
        waiting.remove(each)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=60, max_size=60),
    st.lists(st.integers(1, 6), min_size=60, max_size=60),
    st.floats(0.25, 8),
    st.floats(0.25, 8),
    st.integers(1, 16),
)
def test_two_that_wait_all_the_time_get_their_shares_within_one_request_each(
    first: list[int], second: list[int], weight_a: float, weight_b: float, max_rows: int
) -> None:
    queue = queue_of(
        [job("a", rows=rows) for rows in first] + [job("b", rows=rows) for rows in second],
        {"a": weight_a, "b": weight_b}.__getitem__,
    )
    served = {"a": 0, "b": 0}
    left = {"a": len(first), "b": len(second)}
    widest = 6 + (
        max_rows if max_rows > 1 else 0
    )  # a batch may fill up with the other one's where a request is too big
    while all(left.values()):
        for each in batch(queue, max_rows):
            served[each.tenant] += each.form.rows
            left[each.tenant] -= 1
        if all(left.values()):
            ahead = abs(served["a"] / weight_a - served["b"] / weight_b)
            assert ahead <= widest / weight_a + widest / weight_b + 1e-9


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 6), st.sampled_from([4, 8, 16])), max_size=80))
def test_nobody_waits_for_more_batches_than_were_before_it(kinds: list[tuple[str, int, int]]) -> None:
    jobs = [job(tenant, rows=rows, width=width) for tenant, rows, width in kinds]
    queue = queue_of(jobs)
    led: Counter[str] = Counter()
    while taken := batch(queue, 6):
        for each in taken:
            before = sum(other.tenant == each.tenant for other in jobs[: jobs.index(each)])
            assert led[each.tenant] <= before
        led[taken[0].tenant] += 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), max_size=60), st.integers(1, 12))
def test_the_order_within_a_tenant_is_kept_where_all_fit(kinds: list[tuple[str, int]], max_rows: int) -> None:
    jobs = [job(tenant, rows=1) for tenant, _ in kinds]
    served = emptied(queue_of(jobs), max_rows)
    for tenant in "abc":
        assert [each for each in served if each.tenant == tenant] == [each for each in jobs if each.tenant == tenant]


NPU = BatchCurve(((1, 1_000.0), (8, 2_400.0), (32, 7_000.0)))
MOBILENET = BatchCurve(((1, 7_240.0), (8, 61_400.0), (32, 272_000.0)))


@pytest.mark.parametrize(("curve", "budget_us"), [(NPU, 3_000.0), (MOBILENET, 10_000.0)])
def test_a_tenant_that_sends_ten_times_its_share_costs_the_others_a_run_and_a_half_and_no_request(
    curve: BatchCurve, budget_us: float
) -> None:
    best = curve.best_rows(budget_us)
    share = 0.6 / 4 * best / curve.us(best) * 1e6
    others = {"a": share, "b": share, "c": share}
    seconds = 2_000 / share
    calm = simulate(curve, budget_us, {**others, "noisy": share}, seconds)
    loud = simulate(curve, budget_us, {**others, "noisy": 10 * share}, seconds)
    assert loud.shed["noisy"] > 0
    for tenant in others:
        assert loud.shed[tenant] == 0
        assert median(loud.waited_us[tenant]) <= median(calm.waited_us[tenant]) + 1.5 * curve.us(best)


def test_a_flood_lengthens_the_others_p99_by_less_than_a_quarter() -> None:
    run_us = 2_800.0
    share = 1e6 / run_us / 4
    others = {"a": 0.6 * share, "b": 0.6 * share, "c": 0.6 * share}

    def p99_us(noisy: float) -> float:
        seen = simulate(BatchCurve(((1, run_us),)), 10_000.0, {**others, "noisy": noisy * share}, 100.0)
        return float(np.percentile([each for tenant in others for each in seen.waited_us[tenant]], 99))

    assert p99_us(10.0) < 1.25 * p99_us(1.0)


def test_a_flood_does_not_lower_the_throughput() -> None:
    share = NPU.best_rows(3_000) / NPU.us(NPU.best_rows(3_000)) * 1e6 / 4
    flood = simulate(NPU, 3_000, {"a": share / 2, "noisy": 20 * share}, 1.0)
    answered = sum(map(len, flood.waited_us.values()))
    assert answered >= 0.97 * 4 * share
