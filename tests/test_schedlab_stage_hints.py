"""What apps tell of themselves."""

from __future__ import annotations

import numpy as np

from npuops.eevdf.mix import REST, Activity, Doing, Mix, Player
from npuops.hostsched.hint import Hint, Kind
from npuops.schedlab.stage_hints import KINDS, hint_of

SERVE = Activity(Doing.SERVE, work_us=100, gap_us=1000, slo_us=2000)
A = Player("A", (SERVE, SERVE, REST, SERVE, Activity(Doing.SCAN)))
MIX = Mix("m", (10_000,) * 5, (A,))


def hint(arrivals_us: list[int], done_us: list[int], since_us: int) -> Hint | None:
    done = np.array([done * 1000 if done >= 0 else -1 for done in done_us], np.int64)
    return hint_of(MIX, A, np.array(arrivals_us, np.int64) * 1000, done, since_us, 77)


def test_an_app_tells_what_waits_and_how_urgent_it_is() -> None:
    found = hint([1000, 2000, 3000, 3500], [1500, 5000, -1, -1], 4000)
    assert found == Hint(77, Kind.LATENCY, slo_us=2000, slack_us=1000, queued=2, served=2, missed=1)


def test_what_waits_goes_on_into_the_next_serving_phase_and_not_beyond_another_one() -> None:
    late = hint([9000], [-1], 12_000)
    assert late is not None
    assert (late.queued, late.slack_us) == (1, -1000)
    dropped = hint([9000], [-1], 31_000)
    assert dropped is not None
    assert (dropped.queued, dropped.slack_us) == (0, None)


def test_an_app_that_rests_still_says_what_it_is_for_and_has_nothing_to_do() -> None:
    before = hint([1000, 9000], [1500, -1], 19_999)
    assert before is not None
    assert (before.queued, before.kind) == (1, Kind.LATENCY)
    resting = hint([1000, 9000], [1500, -1], 20_000)
    assert resting == Hint(77, Kind.LATENCY, slo_us=2000, slack_us=None, queued=0, served=1, missed=0)


def test_an_app_that_has_done_nothing_yet_says_nothing() -> None:
    later = Player("B", (REST, REST, SERVE))
    mix = Mix("m", (10_000,) * 3, (later,))
    none = np.zeros(0, np.int64)
    assert hint_of(mix, later, none, none, 19_999, 1) is None
    assert hint_of(mix, later, none, none, 20_000, 1) == Hint(1, Kind.LATENCY, slo_us=2000, queued=0)


def test_a_batch_job_says_only_that_it_is_one_even_at_the_very_end() -> None:
    assert hint([], [], 50_000) == Hint(77, Kind.BATCH)


def test_answers_are_counted_on_through_other_roles() -> None:
    """Otherwise the next serving phase would seem to have answered all of them in one moment."""
    arrivals, done = [1000, 9000, 32_000], [1500, 12_000, 33_000]
    found = [hint(arrivals, done, since) for since in (15_000, 25_000, 35_000, 45_000)]
    assert [(one.served, one.missed) for one in found if one is not None] == [(3, 1)] * 4


def test_each_request_is_late_by_its_own_slo() -> None:
    patient = Activity(Doing.SERVE, work_us=100, gap_us=1000, slo_us=9000)
    app = Player("A", (patient, SERVE))
    mix = Mix("m", (10_000, 10_000), (app,))
    arrivals = np.array([1_000, 8_000, 9_000, 11_000], np.int64) * 1000
    done = np.array([9_000_000, -1, -1, -1], np.int64)
    found = hint_of(mix, app, arrivals, done, 12_000, 1)
    assert found == Hint(1, Kind.LATENCY, slo_us=2000, slack_us=1000, queued=3, served=1, missed=0)


def test_everything_but_rest_has_a_kind() -> None:
    assert set(KINDS) == set(Doing) - {Doing.REST}
