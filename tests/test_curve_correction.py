from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine_lab import engine_of, hostile, row, run
from npuops.runtime.batch_curve import BatchCurve
from npuops.runtime.curve_correction import RUNS, CurveCorrection

CURVES = (BatchCurve(((1, 100.0), (4, 300.0), (8, 500.0))), BatchCurve(((2, 50.0),)))


def after(runs: list[tuple[int, float]], index: int = 0, curves: tuple[BatchCurve, ...] = CURVES) -> BatchCurve:
    correction = CurveCorrection()
    for rows, took_us in runs:
        curves = correction.ran("npu", index, curves, rows, took_us) or curves
    return curves[index]


def test_runs_that_are_clearly_shorter_in_a_row_put_their_size_right_and_no_larger_one() -> None:
    assert after([(4, 100.0)] * (RUNS - 1)) is CURVES[0]
    right = after([(4, 100.0)] * (RUNS - 1) + [(4, 120.0)])
    assert (right.us(4), right.us(8)) == (120.0, 500.0)
    assert right.us(1) == 100.0
    assert after([(4, 90.0)] * RUNS).us(1) == 90.0, "fewer rows never take longer"
    assert after([(2, 10.0)] * RUNS, index=1).us(2) == 10.0


def test_one_run_as_long_as_the_curve_says_begins_the_count_anew() -> None:
    assert after(([(4, 100.0)] * (RUNS - 1) + [(4, 290.0)]) * 5) is CURVES[0]


def test_runs_of_a_size_between_prove_the_smaller_one() -> None:
    assert after([(6, 120.0)] * RUNS).us(4) == 120.0
    assert after([(6, 120.0)] * RUNS).us(8) == 500.0


def test_what_was_never_measured_or_takes_longer_changes_nothing() -> None:
    assert after([(1, 10.0)] * RUNS, index=1) is CURVES[1]
    assert after([(4, 9e9)] * RUNS) is CURVES[0]
    nothing = (BatchCurve(()),)
    assert after([(4, 1.0)] * RUNS, curves=nothing) is nothing[0]


def test_a_device_that_was_measured_on_a_busy_host_is_believed_to_be_fast_again() -> None:
    async def main() -> None:
        async with engine_of([hostile()]) as lab:
            (replica,) = lab.engine.replicas.all
            replica.curves = (BatchCurve(((1, 5e6), (8, 40e6))),)
            for _ in range(RUNS + 2):
                assert not isinstance(await lab.ask(row(1.0)), Exception)
            assert replica.curves[0].us(1) < 1e6
            assert replica.curves[0].us(8) == 40e6

    run(main())


@given(st.lists(st.tuples(st.integers(1, 12), st.floats(1.0, 1000.0)), max_size=60))
def test_a_curve_is_only_ever_made_shorter_and_never_below_what_was_seen(runs: list[tuple[int, float]]) -> None:
    right = after(runs)
    least = min((took_us for _, took_us in runs), default=0.0)
    for rows in range(1, 13):
        assert right.us(rows) <= CURVES[0].us(rows) + 1e-6
        assert right.us(rows) >= min(least, CURVES[0].us(rows)) - 1e-6
