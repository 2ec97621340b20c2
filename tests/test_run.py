"""`npuops run`: the same outputs as the reference, honest about what ran, and hard to feed nonsense."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from manifest_examples import manifest
from npuops.artifacts.bundle import pack
from npuops.artifacts.folder import open_artifact
from npuops.build.run import run_artifact, top_scores
from npuops.cli.run import _range
from npuops.errors import UsageError
from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import Samples
from toy_artifact import LABELS, npuops, sample_input, toy_artifact


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_artifact(tmp_path_factory.mktemp("run") / "mlp.npuart").root


@pytest.fixture(scope="module")
def wanted(artifact: Path) -> np.ndarray:
    samples = Samples(inputs=({"x": sample_input()},), source="test", digest="")
    return run_reference(artifact.with_suffix(".onnx"), samples)["y"][0]


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "x.npz"
    np.savez(path, x=sample_input())
    return path


def test_outputs_are_the_references_and_are_written_whole(
    artifact: Path, npz: Path, wanted: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "out.npz"
    done = npuops("run", artifact, "--input", npz, "-o", out, "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 0
    assert answer["schema"] == "npuops.run/1"
    assert answer["outputs"] == {"y": {"shape": [1, 10], "dtype": "float32", "file": str(out)}}
    with np.load(out) as found:
        np.testing.assert_allclose(found["y"], wanted, rtol=1e-5)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_top_k_names_the_labels_of_the_largest_scores(artifact: Path, npz: Path, wanted: np.ndarray) -> None:
    answer = json.loads(npuops("run", artifact, "-i", npz, "--top-k", "3", "--json").stdout)
    best = np.argsort(-wanted[0])[:3]
    assert [score["label"] for score in answer["top_k"]] == [LABELS[index] for index in best]


def test_a_time_says_what_it_means(artifact: Path, npz: Path) -> None:
    latency = json.loads(npuops("run", artifact, "-i", npz, "--repeat", "4", "--json").stdout)["latency"]
    assert latency["low_us"] <= latency["us"] <= latency["high_us"]
    assert latency["basis"] == "measured"
    assert "median of 3 runs after a warm-up" in latency["source"]


def test_a_bundle_and_standard_input_work_like_a_folder_and_a_file(artifact: Path, npz: Path, tmp_path: Path) -> None:
    bundle = pack(artifact, tmp_path / "one.npuart")
    answers = [
        json.loads(npuops("run", artifact, "-i", npz, "--json").stdout)["top_k"],
        json.loads(npuops("run", bundle, "-i", "-", "--json", stdin=npz.read_bytes()).stdout)["top_k"],
    ]
    assert answers[0] == answers[1]


def test_a_npy_file_feeds_a_model_with_one_input(artifact: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", sample_input())
    done = npuops("run", artifact, "-i", tmp_path / "x.npy")
    assert done.returncode == 0, done.stderr
    assert "1. digit <" in done.stdout


def test_a_damaged_artifact_does_not_run(artifact: Path, npz: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(artifact, tmp_path / "broken")
    program = broken / "program.toy"
    data = bytearray(program.read_bytes())
    data[200] ^= 1
    program.write_bytes(data)
    done = npuops("run", broken, "-i", npz)
    assert done.returncode == 1
    assert "program.toy" in done.stderr


def test_a_stand_in_is_used_only_when_it_is_asked_for_by_name(artifact: Path) -> None:
    opened = open_artifact(artifact)
    with pytest.raises(UsageError, match="litert"):
        run_artifact(opened, {"x": sample_input()}, engine="litert")


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong", ["missing.npz", "empty.npz", "text.npz", "short.npz", "name.npz", "text.npy", "x.txt"]
)
def test_a_wrong_input_is_an_error_with_advice_and_not_a_traceback(artifact: Path, tmp_path: Path, wrong: str) -> None:
    path = tmp_path / wrong
    buffer = io.BytesIO()
    np.savez(buffer, x=sample_input())
    contents = {
        "empty.npz": b"",
        "text.npz": b"not a zip at all",
        "short.npz": buffer.getvalue()[:150],
        "text.npy": b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4'}",
        "x.txt": b"1 2 3",
    }
    if wrong == "name.npz":
        np.savez(path, y=sample_input())
    elif wrong in contents:
        path.write_bytes(contents[wrong])
    done = npuops("run", artifact, "-i", path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_labels_are_not_guessed() -> None:
    scores = np.zeros((1, 1001), np.float32)
    assert top_scores(manifest(), {"probabilities": scores}, 5) == ()
    labelled = manifest(labels=("a", "b"))
    assert top_scores(labelled, {"probabilities": scores}, 5) == ()
    assert top_scores(labelled, {"probabilities": np.array([[np.nan, 1.0]])}, 5) == ()
    assert [score.label for score in top_scores(labelled, {"probabilities": np.array([[1.0, 1.0]])}, 5)] == ["a", "b"]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([True, False]), ", 0 to 1"),
        (np.array([], np.float32), ""),
        (np.array(["a"]), ""),
        (np.array([3, -7], np.int8), ", -7 to 3"),
    ],
)
def test_every_dtype_can_be_shown(array: np.ndarray, words: str) -> None:
    assert _range(array) == words
