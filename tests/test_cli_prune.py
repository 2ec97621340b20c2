from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from npuops.models.zoo import zoo_model

CNN = zoo_model("digits-cnn")


def prune(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "npuops.cli.main", "prune", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_verb_writes_a_smaller_model_and_says_what_it_cost(tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    done = prune(CNN.model, "--sparsity", "0.25", "--structured", "--eval", CNN.evaluation, "-o", out)
    assert done.returncode == 0, done.stderr
    onnx.checker.check_model(onnx.load(out), full_check=True)
    assert out.stat().st_size < CNN.model.stat().st_size
    assert "MACs" in done.stdout
    assert "top1 (360 samples)" in done.stdout
    assert "left whole: /head/Gemm" in done.stdout


def test_a_model_of_the_zoo_brings_its_evaluation_data(tmp_path: Path) -> None:
    done = prune("zoo:digits-cnn", "--max-drop", "0.5%", "-o", tmp_path / "small.onnx", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"]["samples"] == 360


def test_the_search_prints_json_that_names_the_share_it_found(tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    done = prune(CNN.model, "--max-drop", "1%", "--eval", CNN.evaluation, "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["schema"] == "npuops.prune/1"
    assert report["met"] is True
    assert 0.1 < report["sparsity"] < 0.95
    assert report["accuracy"]["fp32"] - report["accuracy"]["artifact"] <= 0.01
    assert out.exists()


def test_a_limit_that_cannot_be_met_ends_with_1_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    done = prune(CNN.model, "--max-drop", "0", "--metric", "cosine", "--eval", CNN.evaluation, "-o", out)
    assert done.returncode == 1, done.stderr
    assert "nothing was written" in done.stdout
    assert "1% removed: cosine" in done.stdout
    assert not out.exists()


def test_a_dynamic_batch_is_fixed_by_shape(tmp_path: Path) -> None:
    model = onnx.load(CNN.model)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, tmp_path / "dynamic.onnx")
    plan = (tmp_path / "dynamic.onnx", "--sparsity", "0.1", "--eval", CNN.evaluation, "-o", tmp_path / "small.onnx")
    assert "--shape" in prune(*plan).stderr
    done = prune(*plan, "--shape", "image=1x1x8x8")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--sparsity"),
        (("--sparsity", "1.5"), "above 0 and below 1"),
        (("--max-drop", "1%"), "--eval"),
        (("--max-drop", "little", "--eval", CNN.evaluation), "1% or 0.01"),
        (("--sparsity", "0.3", "--scope", "layers"), "did you mean 'layer'"),
    ],
)
def test_wrong_use_ends_with_2_and_advice(tmp_path: Path, arguments: tuple[str | Path, ...], words: str) -> None:
    out = tmp_path / "small.onnx"
    done = prune(CNN.model, *arguments, "-o", out)
    assert done.returncode == 2
    assert words in done.stderr
    assert not out.exists()


def test_the_model_is_never_overwritten_by_its_pruned_self(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(CNN.model.read_bytes())
    done = prune(model, "--sparsity", "0.3", "-o", model)
    assert done.returncode == 2
    assert model.read_bytes() == CNN.model.read_bytes()


def test_a_truncated_model_is_a_clear_error(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(CNN.model.read_bytes()[:5000])
    done = prune(model, "--sparsity", "0.3", "-o", tmp_path / "small.onnx")
    assert done.returncode == 2
    assert "truncated" in done.stderr
    assert "Traceback" not in done.stderr
