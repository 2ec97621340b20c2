"""Rivals beside the default."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.eevdf.mix import Doing
from npuops.errors import DataError
from npuops.schedlab.comparison import compare, estimate, fairness, progress_by_task, worst_progress
from npuops.schedlab.outcome import Outcome, Part
from npuops.schedlab.recording import Origin


def outcome(progress: dict[str, tuple[float, ...]], *, seed: int = 1, setting: str = "s", mix: str = "m") -> Outcome:
    """Hogs that got so far in each phase, and an app that answered half of its requests in time."""
    parts = [part(name, phase, Doing.SCAN, got) for name, row in progress.items() for phase, got in enumerate(row)]
    return Outcome(
        mix=mix, seed=seed, setting=setting, origin=Origin.KERNEL, duration_us=2_000_000, clean_share=0.9,
        p50_us=100.0, p99_us=1000.0, parts=(*parts, part("A", 0, Doing.SERVE, 0.0, arrivals=10)),
    )  # fmt: skip


def part(name: str, phase: int, doing: Doing, progress: float, arrivals: int = 0) -> Part:
    return Part(
        player=name, phase=phase, doing=doing, arrivals=arrivals, served=arrivals, in_slo=arrivals // 2, p50_us=1.0,
        p99_us=1.0, max_us=1.0, progress=progress, cpu_us=0, voluntary=50, involuntary=50,
    )  # fmt: skip


DEFAULT = outcome({"H0": (100.0, 100.0), "H1": (50.0, 200.0)}, setting="default")


def test_the_worst_progress_is_that_of_the_slowest_task_in_its_worst_phase() -> None:
    assert worst_progress(outcome({"H0": (100.0, 90.0), "H1": (20.0, 200.0)}), DEFAULT) == 0.4


def test_an_app_that_serves_is_no_batch_task() -> None:
    assert worst_progress(outcome({}), outcome({})) is None
    assert fairness(outcome({}), outcome({})) is None


def test_a_phase_in_which_the_default_made_no_progress_cannot_be_compared() -> None:
    default = outcome({"H0": (0.0, 100.0)})
    assert progress_by_task(outcome({"H0": (7.0, 50.0)}), default) == {"H0": 0.5}


def test_fairness_is_one_when_all_lose_alike_and_less_when_one_pays_for_all() -> None:
    assert fairness(outcome({"H0": (50.0, 50.0), "H1": (25.0, 100.0)}), DEFAULT) == pytest.approx(1)
    assert fairness(outcome({"H0": (0.0, 0.0), "H1": (50.0, 200.0)}), DEFAULT) == pytest.approx(0.5)


def test_a_rival_is_put_beside_the_plays_of_the_same_seeds() -> None:
    rivals = [outcome({"H0": (90.0, 90.0), "H1": (45.0, 180.0)}, seed=seed) for seed in (1, 2, 3)]
    defaults = [outcome({"H0": (100.0, 100.0), "H1": (50.0, 200.0)}, seed=seed) for seed in (1, 2, 3)]
    found = compare(rivals, defaults)
    assert found.worst_progress is not None
    assert found.worst_progress.median == pytest.approx(0.9)
    assert found.worst_progress.plays == 3
    assert found.slo_share is not None
    assert found.slo_share.median == 0.5
    assert found.switches_per_s is not None
    assert found.switches_per_s.median == 250
    assert found.unclean == 3


@pytest.mark.parametrize(
    ("rivals", "defaults"),
    [
        ([], []),
        ([DEFAULT], []),
        ([DEFAULT], [outcome({"H0": (1.0, 1.0)}, seed=2)]),
        ([DEFAULT], [outcome({"H0": (1.0, 1.0)}, mix="other")]),
        ([DEFAULT], [outcome({"H0": (1.0, 1.0)})]),
        ([DEFAULT, outcome({}, setting="x")], [DEFAULT, DEFAULT]),
    ],
)
def test_plays_that_are_not_alike_are_not_compared(rivals: list[Outcome], defaults: list[Outcome]) -> None:
    with pytest.raises(DataError):
        compare(rivals, defaults)


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=30))
def test_an_interval_lies_within_what_was_seen_and_is_the_same_every_time(figures: list[float | None]) -> None:
    found = estimate(figures, seed=3)
    present = [figure for figure in figures if figure is not None]
    assert found == estimate(figures, seed=3)
    assert (found is None) == (not present)
    if found is not None:
        assert min(present) <= found.low <= found.high <= max(present)
        assert min(present) <= found.median <= max(present)
        assert found.plays == len(present)
