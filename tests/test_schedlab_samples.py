"""Samples: a file gives back what was put in, and nothing contradictory is ever trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from made_samples import made_samples
from npuops.errors import DataError, StorageError
from npuops.hostsched.scorer import SHAPE
from npuops.schedlab.samples import join, read_samples, write_samples

SAMPLES = made_samples(12, 4, 3)


def test_a_file_gives_back_the_very_same_arrays(tmp_path: Path) -> None:
    write_samples(tmp_path / "s.npz", SAMPLES)
    assert read_samples(tmp_path / "s.npz").digest == SAMPLES.digest


def test_a_file_cut_off_anywhere_is_a_clear_error(tmp_path: Path) -> None:
    write_samples(tmp_path / "s.npz", SAMPLES)
    whole = (tmp_path / "s.npz").read_bytes()
    cut = tmp_path / "cut.npz"
    for length in range(0, len(whole), max(len(whole) // 50, 1)):
        cut.write_bytes(whole[:length])
        with pytest.raises(DataError):
            read_samples(cut)


def test_a_changed_byte_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    write_samples(tmp_path / "s.npz", SAMPLES)
    whole = bytearray((tmp_path / "s.npz").read_bytes())
    changed = tmp_path / "changed.npz"
    for place in range(0, len(whole), max(len(whole) // 60, 1)):
        whole[place] ^= 0x55
        changed.write_bytes(whole)
        whole[place] ^= 0x55
        try:
            found = read_samples(changed)
        except DataError:
            continue
        assert found.digest == SAMPLES.digest


def test_something_else_in_the_file_is_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", tasks=SAMPLES.tasks)
    with pytest.raises(DataError, match="missing"):
        read_samples(tmp_path / "other.npz")
    np.save(tmp_path / "array.npy", SAMPLES.tasks)
    with pytest.raises(DataError, match="missing"):
        read_samples(tmp_path / "array.npy")
    with pytest.raises(StorageError):
        read_samples(tmp_path / "absent.npz")


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
