"""A policy is what its card says, or it is refused."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from made_policy import TRAINED, made_policy
from made_weights import noisy_weights
from npuops.errors import IncompatibleArtifactError, IntegrityError, NpuopsError, StorageError
from npuops.hostsched.features import HOST_FEATURES, TASK_FEATURES
from npuops.hostsched.policy_card import (
    CARD_NAME,
    ONNX_NAME,
    SHIFT_BOUNDS_PROGRESS,
    WEIGHTS_NAME,
    open_policy,
    read_card,
)
from npuops.hostsched.scorer import SHAPE


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_policy(tmp_path_factory.mktemp("policy") / "made").root


@pytest.fixture
def policy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "policy"))


def rewrite(policy: Path, **changes: object) -> None:
    plain = msgspec.json.decode((policy / CARD_NAME).read_bytes())
    (policy / CARD_NAME).write_bytes(msgspec.json.encode({**plain, **changes}))


def test_a_policy_is_read_back_as_it_was_written(policy: Path) -> None:
    found = open_policy(policy)
    weights = noisy_weights(SHAPE, 3)
    assert found.card.trained == TRAINED
    assert all(np.array_equal(found.weights[name], weights[name]) for name in weights)
    assert found.card.trained.ranges.ranges().low.shape == (len(TASK_FEATURES) + len(HOST_FEATURES),)
    assert found.artifact("ort-cpu") is None


@pytest.mark.parametrize("name", [WEIGHTS_NAME, ONNX_NAME])
def test_a_file_that_differs_from_its_digest_is_refused(policy: Path, name: str) -> None:
    data = bytearray((policy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (policy / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=name):
        open_policy(policy)


def test_a_missing_file_is_a_clear_error(policy: Path) -> None:
    (policy / ONNX_NAME).unlink()
    with pytest.raises(StorageError, match=ONNX_NAME):
        open_policy(policy)
    with pytest.raises(StorageError, match=CARD_NAME):
        open_policy(policy / "absent")


def test_a_card_cut_off_or_changed_anywhere_is_refused_or_says_the_same(policy: Path) -> None:
    whole = (policy / CARD_NAME).read_bytes()
    before = read_card(policy)
    for length in range(0, len(whole) - 1, 97):
        (policy / CARD_NAME).write_bytes(whole[:length])
        if whole[:length].rstrip() != whole.rstrip():
            with pytest.raises(NpuopsError):
                read_card(policy)
    (policy / CARD_NAME).write_bytes(whole)
    assert read_card(policy) == before


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"schema": "npuops.hostsched.policy/9"}, IncompatibleArtifactError),
        ({"schema": 7}, IncompatibleArtifactError),
        ({"task_features": ["something"]}, IncompatibleArtifactError),
        ({"levels": ["normal", "other"]}, IncompatibleArtifactError),
        ({"unknown": 1}, IntegrityError),
        ({"name": 3}, IntegrityError),
        ({"files": {"../outside": "0"}}, IntegrityError),
        ({"files": {}}, IntegrityError),
        ({"artifacts": {"ort-cpu": "no-digest.npuart"}}, IntegrityError),
        ({"shape": {"slots": 12, "features": 1, "frames": 8, "history": 1, "host": 1, "levels": 1}}, IntegrityError),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value.__name__,
)
def test_a_card_that_contradicts_us_or_itself_is_refused(
    policy: Path, changes: dict[str, object], error: type[NpuopsError]
) -> None:
    rewrite(policy, **changes)
    with pytest.raises(error):
        open_policy(policy)


def test_weights_that_the_card_vouches_for_must_still_be_the_networks(policy: Path) -> None:
    np.savez(policy / WEIGHTS_NAME, task=np.zeros(3, np.float32))
    files = dict(read_card(policy).files)
    files[WEIGHTS_NAME] = hashlib.sha256((policy / WEIGHTS_NAME).read_bytes()).hexdigest()
    rewrite(policy, files=files)
    with pytest.raises(IntegrityError, match="another network"):
        open_policy(policy)


def test_a_range_beyond_any_feature_is_refused(policy: Path) -> None:
    plain = msgspec.json.decode((policy / CARD_NAME).read_bytes())
    plain["trained"]["ranges"]["high"][0] = 1e300
    rewrite(policy, **plain)
    with pytest.raises(IntegrityError, match="range high"):
        read_card(policy)


def test_huge_and_binary_cards_are_refused(policy: Path) -> None:
    (policy / CARD_NAME).write_bytes(b" " * (1 << 21))
    with pytest.raises(IntegrityError, match="megabyte"):
        read_card(policy)
    (policy / CARD_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(IntegrityError):
        read_card(policy)


def test_a_card_that_was_never_corrected_does_not_speak_of_it_and_one_that_was_is_read_back(policy: Path) -> None:
    assert b'"correction"' not in (policy / CARD_NAME).read_bytes()
    line = {"scale": 0.9, "shift": 0.1, "samples": 7, "before": 0.5, "after": 0.4}
    rewrite(policy, correction={"miss": line, "progress": {}, "plays": 8, "unclean": 1, "kernel": "6.18"})
    found = read_card(policy).correction
    assert found is not None
    assert (found.miss.scale, found.progress.is_identity, found.is_identity) == (0.9, True, False)


def test_a_correction_beyond_its_bounds_is_refused(policy: Path) -> None:
    whole = {"progress": {}, "plays": 8, "unclean": 1, "kernel": "6.18"}
    for wrong in ({"scale": 0.4}, {"scale": 2.1}, {"shift": 2.5}, {"shift": "x"}):
        rewrite(policy, correction={"miss": wrong, **whole})
        with pytest.raises(IntegrityError):
            read_card(policy)


@pytest.mark.parametrize("end", SHIFT_BOUNDS_PROGRESS)
def test_progress_is_bounded_on_reading_as_in_the_fit(policy: Path, end: float) -> None:
    rest = {"miss": {}, "plays": 8, "unclean": 1, "kernel": "6.18"}
    rewrite(policy, correction={"progress": {"shift": end}, **rest})
    found = read_card(policy).correction
    assert found is not None
    assert found.progress.shift == end
    rewrite(policy, correction={"progress": {"shift": end * 1.01}, **rest})
    with pytest.raises(IntegrityError, match="progress is shifted"):
        read_card(policy)
