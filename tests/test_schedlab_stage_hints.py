"""What apps tell of themselves."""

from __future__ import annotations

import numpy as np
import pytest

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


@pytest.mark.parametrize("since_us", [20_000, 25_000])
def test_an_app_that_rests_says_nothing(since_us: int) -> None:
    assert hint([], [], since_us) is None


def test_a_batch_job_says_only_that_it_is_one_even_at_the_very_end() -> None:
    assert hint([], [], 50_000) == Hint(77, Kind.BATCH)


def test_everything_but_rest_has_a_kind() -> None:
    assert set(KINDS) == set(Doing) - {Doing.REST}
