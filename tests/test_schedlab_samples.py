"""Samples: nothing contradictory is ever trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from made_samples import made_samples
from npuops.errors import DataError
from npuops.hostsched.scorer import SHAPE
from npuops.schedlab.samples import join

SAMPLES = made_samples(12, 4, 3)


def changed(name: str, value: float, where: tuple[int, ...] = (0, 0, 0)) -> dict[str, np.ndarray]:
    array = getattr(SAMPLES, name).copy()
    array[where[: array.ndim]] = value
    return {name: array}


@pytest.mark.parametrize(
    "wrong",
    [
        changed("miss", 1.5),
        changed("miss", np.nan),
        changed("progress", -0.1),
        changed("miss_weight", -1.0),
        changed("miss_weight", 1.0, (0, 0, 15)),
        changed("levels", -1),
        changed("levels", 0, (0, 0, 15)),
        changed("tasks", 0.5),
        changed("history", 1.0, (0, 15, 0, 0)),
        {"mix": SAMPLES.mix.astype(np.int64)},
        {"miss": SAMPLES.miss[:, :2]},
        {"host": SAMPLES.host[:5]},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_contradictions_are_refused(wrong: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match="samples"):
        replace(SAMPLES, **wrong)


def test_sets_are_joined_only_if_they_fit() -> None:
    both = join([SAMPLES, made_samples(5, 4, 2, seed=1)])
    assert len(both) == 17
    with pytest.raises(DataError, match="joined"):
        join([SAMPLES, made_samples(5, 3, 2)])
    with pytest.raises(DataError, match="no samples"):
        join([])


def test_samples_of_another_network_are_refused() -> None:
    SAMPLES.check(SHAPE)
    with pytest.raises(DataError, match="do not fit"):
        SAMPLES.check(replace(SHAPE, host=SHAPE.host + 1))
    with pytest.raises(DataError, match="do not fit"):
        SAMPLES.check(replace(SHAPE, levels=2))
