"""From raw outcomes to a stage's result."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.loadgen.outcomes import GRPC, LOST, REFUSED, TIMED_OUT, Outcomes, code_words, merged
from npuops.loadgen.results import Fold, Load, Usage, fold

OPEN = Load(kind="open", rate=10, arrivals="constant")
USAGE = Usage(cpu_s=0.5, cpu_share=0.2, reconnects=1, received_bytes=10)


def outcomes(*rows: tuple[float, float, int], kinds: tuple[int, ...] = (), lag_s: float = 0.0) -> Outcomes:
    return Outcomes(
        started_s=np.array([row[0] for row in rows], np.float64),
        latency_s=np.array([row[1] for row in rows], np.float64),
        lag_s=np.full(len(rows), lag_s),
        code=np.array([row[2] for row in rows], np.int16),
        kind=np.array(kinds or [0] * len(rows), np.int32),
    )


def test_only_what_was_due_in_the_window_counts() -> None:
    rows = outcomes((0.5, 0.1, 200), (1.0, 0.1, 200), (1.5, 0.1, 503), (1.9, 5.0, TIMED_OUT), (2.0, 0.1, 200))
    result = fold(OPEN, rows, Fold(begin_s=1, end_s=2, inputs=1), USAGE)
    assert (result.requests, result.ok, result.failed) == (3, 1, 1)
    assert (result.shed, result.errors, result.transport) == ({"503": 1}, {}, {"timeout": 1})


def test_throughput_counts_answers_that_ended_in_the_window_wherever_they_began() -> None:
    rows = outcomes((0.9, 0.2, 200), (1.9, 0.2, 200), (1.0, 0.2, 200), (1.1, 0.2, 500))
    result = fold(OPEN, rows, Fold(begin_s=1, end_s=2, inputs=1), USAGE)
    assert result.throughput == pytest.approx(2)


def test_goodput_leaves_out_answers_beyond_the_slo() -> None:
    rows = outcomes((0, 0.1, 200), (0, 0.3, 200))
    result = fold(OPEN, rows, Fold(begin_s=0, end_s=1, inputs=1, slo_s=0.2), USAGE)
    assert (result.throughput, result.goodput) == (2, 1)


def test_statuses_have_the_words_of_their_protocol() -> None:
    rows = outcomes(*((0.0, 0.1, code) for code in (GRPC, GRPC + 14, GRPC + 13, REFUSED, LOST, 404, GRPC + 99)))
    result = fold(OPEN, rows, Fold(begin_s=0, end_s=1, inputs=1), USAGE)
    assert (result.ok, result.shed) == (1, {"UNAVAILABLE": 1})
    assert result.errors == {"404": 1, "INTERNAL": 1, "grpc 99": 1}
    assert result.transport == {"refused": 1, "lost": 1}
    assert code_words(200) == "200"


@given(
    rows=st.lists(
        st.tuples(st.floats(0, 3), st.floats(0, 2), st.sampled_from([200, 204, 429, 500, 504, GRPC, GRPC + 8, -1, -4])),
        max_size=50,
    ),
    split=st.integers(0, 50),
)
def test_every_request_is_counted_once_however_processes_shared_them(
    rows: list[tuple[float, float, int]], split: int
) -> None:
    how = Fold(begin_s=1, end_s=2, inputs=1)
    whole = fold(OPEN, outcomes(*rows), how, USAGE)
    parts = merged([outcomes(*rows[:split]), outcomes(*rows[split:])])
    assert fold(OPEN, parts, how, USAGE) == whole
    assert whole.requests == whole.ok + whole.failed + sum(whole.shed.values())


def test_tenants_are_told_apart_by_the_kind_of_their_requests() -> None:
    rows = outcomes((0, 0.1, 200), (0, 0.2, 200), (0, 0.3, 429), kinds=(0, 3, 2))
    how = Fold(begin_s=0, end_s=1, inputs=2, tenants=("a", "b"), weights=(1, 2))
    one, other = fold(OPEN, rows, how, USAGE).tenants
    assert (one.name, one.requests, one.ok, one.shed) == ("a", 1, 1, 0)
    assert (other.name, other.requests, other.ok, other.shed) == ("b", 2, 1, 1)


def test_a_client_that_sends_late_or_is_out_of_cpu_says_so() -> None:
    how = Fold(begin_s=0, end_s=1, inputs=1)
    assert fold(OPEN, outcomes(*[(0, 0.1, 200)] * 2, lag_s=0.0005), how, USAGE).client.keeps_up
    assert not fold(OPEN, outcomes(*[(0, 0.1, 200)] * 2, lag_s=0.02), how, USAGE).client.keeps_up
    spent = Usage(cpu_s=1, cpu_share=0.99, reconnects=0, received_bytes=0)
    assert not fold(OPEN, outcomes((0, 0.1, 200)), how, spent).client.keeps_up
    assert fold(Load(kind="closed", concurrency=1), outcomes((0, 0.1, 200)), how, USAGE).client.lag_p99_ms is None


def test_a_window_without_time_has_no_rate() -> None:
    assert fold(OPEN, outcomes(), Fold(begin_s=1, end_s=1, inputs=1), USAGE).throughput == 0


def test_a_client_that_waits_for_a_processor_does_not_keep_up_however_little_it_got() -> None:
    held_up = Usage(cpu_s=1, cpu_share=0.4, cpu_wait_share=0.55, reconnects=0, received_bytes=0)
    closed = Load(kind="closed", concurrency=1)
    result = fold(closed, outcomes((0, 0.1, 200)), Fold(begin_s=0, end_s=1, inputs=1), held_up)
    assert not result.client.keeps_up
    assert result.client.cpu_wait_share == 0.55
