"""Figures of a play."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.eevdf.mix import REST, Activity, Doing, Mix, Player
from npuops.schedlab.outcome import Outcome, judge, write_json
from npuops.schedlab.recording import UNSERVED, Origin, Record, Recording

SERVE = Activity(Doing.SERVE, work_us=100, gap_us=1000, slo_us=2000)
HOG = Activity(Doing.SCAN)


def recording(
    acts: tuple[Activity, ...], arrivals_us: list[float], done_us: list[float], clean: float | None = 1.0
) -> Recording:
    """A and a hog, in phases of 10 ms; -1 for what was never answered."""
    mix = Mix("m", (10_000,) * len(acts), (Player("A", acts), Player("H", (HOG,) * len(acts))))
    some, none = np.arange(1, len(acts) + 1), np.zeros(0, np.int64)
    done = np.array([UNSERVED if done < 0 else round(done * 1000) for done in done_us], np.int64)
    app = Record("A", np.array(arrivals_us, np.int64) * 1000, done, some * 1.0, some * 1000, some, some * 2)
    hog = Record("H", none, none, some * 10.0, some * 5000, some * 0, some)
    return Recording(mix, 7, Origin.KERNEL, (app, hog), clean, 10_000, np.zeros((2, len(acts))))


def test_requests_count_in_the_phase_of_their_arrival_and_unserved_ones_as_misses() -> None:
    outcome = judge(recording((SERVE, REST, SERVE), [1000, 5000, 9500, 21_000], [1500, 7500, -1, 21_100]))
    first, second, third = outcome.parts[:3]
    assert (first.arrivals, first.served, first.in_slo) == (3, 2, 1)
    assert (second.arrivals, second.p99_us) == (0, None)
    assert (third.arrivals, third.in_slo, third.max_us) == (1, 1, 100.0)
    assert outcome.slo_by_phase == {0: 1 / 3, 2: 1.0}
    assert outcome.slo_share == pytest.approx((1 / 3 + 1) / 2)


def test_what_was_never_answered_counts_as_the_time_until_it_was_dropped() -> None:
    assert judge(recording((SERVE, REST), [4000], [-1])).parts[0].max_us == 6000
    assert judge(recording((SERVE, SERVE, REST), [4000], [-1])).parts[0].max_us == 16_000, "served on in the next phase"


def test_an_early_miss_is_a_miss_however_soon_the_phase_ended() -> None:
    assert judge(recording((SERVE, REST), [9999], [-1])).slo_share == 0


def test_a_play_without_requests_has_no_slo_share_and_no_response_time() -> None:
    outcome = judge(recording((REST,), [], []))
    assert outcome.slo_share is None
    assert outcome.p99_us is None


def test_a_quantile_is_a_response_time_that_was_measured() -> None:
    outcome = judge(recording((SERVE,), [0, 100, 200, 300], [10, 120, 230, 340]))
    assert outcome.parts[0].p50_us in {20, 30}
    assert outcome.parts[0].p99_us == 40
    assert outcome.p99_us == 40


def test_a_disturbed_play_says_so_and_a_simulated_one_cannot_be_disturbed() -> None:
    assert not judge(recording((SERVE,), [0], [10], clean=0.9)).is_clean
    assert judge(recording((SERVE,), [0], [10], clean=0.97)).is_clean
    assert judge(recording((SERVE,), [0], [10], clean=None)).is_clean


def test_switches_and_cpu_time_are_those_of_all() -> None:
    outcome = judge(recording((SERVE, REST), [0], [10]))
    assert outcome.switches == (1 + 2) + (2 + 4) + 1 + 2
    assert outcome.cpu_us == 3 + 15


@given(st.lists(st.tuples(st.integers(0, 19_999), st.integers(-1, 30_000)), max_size=40))
def test_the_parts_of_a_play_hold_each_request_once(requests: list[tuple[int, int]]) -> None:
    requests = sorted(requests)
    played = recording((SERVE, SERVE), [at for at, _ in requests], [-1 if d < 0 else at + d for at, d in requests])
    outcome: Outcome = judge(played)
    assert sum(part.arrivals for part in outcome.parts) == len(requests)
    assert sum(part.served for part in outcome.parts) == sum(d >= 0 for _, d in requests)
    assert sum(part.in_slo for part in outcome.parts) == sum(0 <= d <= 2000 for _, d in requests)
    assert msgspec.json.decode(write_json(outcome), type=Outcome) == outcome
