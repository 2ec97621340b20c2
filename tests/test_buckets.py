from __future__ import annotations

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import OptionError
from npuops.runtime.batch_curve import BatchCurve
from npuops.runtime.buckets import (
    AxisPadding,
    Bucket,
    Crop,
    check_padding,
    choose,
    cropped_shapes,
    curve_over,
    filled_shapes,
    padding,
)
from npuops.runtime.signature import Form, Port, Shape, Signature, form_of

TEXT = Signature(
    inputs=(
        Port(name="ids", dtype="int64", shape=(-1, -1)),
        Port(name="mask", dtype="int64", shape=(-1, -1)),
    ),
    outputs=(Port(name="hidden", dtype="float32", shape=(-1, -1, 8)),),
    batched=True,
    max_rows=8,
)
FILL = AxisPadding(values=(0.0, 0.0), crops=(Crop(output=0, axis=1, input=0, input_axis=1),))


def text(rows: int, tokens: int) -> Form:
    return form_of(TEXT, [(rows, tokens), (rows, tokens)])


def bucket(index: int, rows: int | None, tokens: int) -> Bucket:
    return Bucket(index, rows, ((tokens,), (tokens,)))


def test_a_free_shape_takes_everything_and_wastes_nothing() -> None:
    free = bucket(0, None, -1)
    assert choose([free], text(3, 17), 3) is free
    assert padding(3, free) == 0


def test_the_smallest_that_holds_the_rows_is_chosen() -> None:
    buckets = [bucket(0, 8, -1), bucket(1, 1, -1), bucket(2, 4, -1)]
    assert [choose(buckets, text(rows, 5), rows) for rows in (1, 2, 4, 5)] == [
        buckets[1],
        buckets[2],
        buckets[2],
        buckets[0],
    ]
    assert padding(5, buckets[0]) == 3
    assert choose(buckets, text(8, 5), 9) is None


def test_other_sizes_are_refused_unless_the_owner_lets_them_be_filled_up() -> None:
    buckets = [bucket(0, 4, 16), bucket(1, 4, 64)]
    assert choose(buckets, text(1, 16), 1) is buckets[0]
    assert choose(buckets, text(1, 10), 1) is None
    assert choose(buckets, text(1, 10), 1, FILL) is buckets[0]
    assert choose(buckets, text(1, 17), 1, FILL) is buckets[1]
    assert choose(buckets, text(1, 65), 1, FILL) is None
    assert choose(buckets, text(1, 10), 1, AxisPadding(values=(0.0, None))) is None


def test_rows_and_other_axes_are_weighed_together() -> None:
    buckets = [bucket(0, 8, 16), bucket(1, 1, 64)]
    assert choose(buckets, text(1, 10), 1, FILL) is buckets[1]
    assert choose(buckets, text(2, 10), 2, FILL) is buckets[0]


def test_another_rank_does_not_fit_and_an_unknown_one_fits_all() -> None:
    form = text(1, 4)
    assert choose([Bucket(0, None, ((4, 1), (4,)))], form, 1) is None
    anything = Bucket(1, None, (None, None))
    assert choose([anything], form, 1) is anything
    assert filled_shapes(anything, form) == form.key


def test_what_was_filled_up_is_cut_off_again() -> None:
    form = text(2, 10)
    assert filled_shapes(bucket(0, 4, 16), form) == ((16,), (16,))
    assert filled_shapes(bucket(0, 4, -1), form) == ((10,), (10,))
    assert cropped_shapes([(2, 16, 8)], form, FILL) == ((2, 10, 8),)


def test_a_crop_of_an_axis_that_does_not_exist_is_refused() -> None:
    check_padding(FILL, [2, 2], [3])
    check_padding(FILL, [None, None], [None])
    for crop in (Crop(0, 3, 0, 1), Crop(1, 0, 0, 1), Crop(0, 1, 2, 0), Crop(0, 1, 0, -1)):
        with pytest.raises(OptionError, match="has no axis"):
            check_padding(AxisPadding(crops=(crop,)), [2, 2], [3])


def test_the_curve_of_a_device_is_that_of_all_its_artifacts_for_these_shapes() -> None:
    buckets = [bucket(0, 1, 16), bucket(1, 8, 16), bucket(2, 4, 64)]
    curves = [BatchCurve(((1, 10.0),)), BatchCurve(((8, 30.0),)), BatchCurve(((4, 99.0),))]
    short = curve_over(buckets, curves, text(1, 16))
    assert [short.us(rows) for rows in (1, 2, 8)] == [10.0, 30.0, 30.0]
    assert short.best_rows(100) == 8
    assert curve_over(buckets, curves, text(1, 64)).us(1) == 99.0
    assert curve_over(buckets, curves, text(1, 10), FILL).us(3) == 30.0
    assert curve_over(buckets, curves, text(1, 10)).us(1) == 0.0


def test_the_curve_of_a_free_artifact_is_its_own() -> None:
    curves = [BatchCurve(((1, 10.0),)), BatchCurve(((1, 9.0), (32, 99.0)))]
    assert curve_over([bucket(0, 1, 16), bucket(1, None, 16)], curves, text(1, 16)) is curves[1]


SHAPES = st.lists(st.tuples(st.sampled_from([None, 1, 2, 4, 8]), st.sampled_from([-1, 4, 8, 16])), max_size=6)


@given(SHAPES, st.integers(1, 8), st.integers(1, 16), st.booleans())
def test_the_chosen_bucket_holds_the_request_and_none_wastes_less(
    kinds: list[tuple[int | None, int]], rows: int, tokens: int, fill: bool
) -> None:
    buckets = [bucket(index, count, width) for index, (count, width) in enumerate(kinds)]
    form = text(rows, tokens)

    def computed(each: Bucket) -> int:
        shapes: tuple[Shape, ...] = filled_shapes(each, form)
        return (each.rows or rows) * sum(map(prod, shapes))

    fitting = [
        each
        for each in buckets
        if (each.rows is None or each.rows >= rows)
        and (each.shapes[0] in {(-1,), (tokens,)} or (fill and (each.shapes[0] or (0,))[0] > tokens))
    ]
    chosen = choose(buckets, form, rows, FILL if fill else AxisPadding())
    assert (chosen is None) == (not fitting)
    if chosen is not None:
        assert computed(chosen) == min(map(computed, fitting))
