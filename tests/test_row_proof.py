"""One static batch that takes fewer rows: only where the owner says so, and where it can be true."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from running_server import repository, serving
from served_artifacts import ort_artifact, save, tiny_cnn

ROWS = 8
FREE = "[padding]\nrows = true\n"


def mixing(path: Path, *, spread: float) -> Path:
    """Each row less `spread` times the mean of all rows."""
    shape = [ROWS, 4]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Mul", ["mean", "spread"], ["part"]),
        helper.make_node("Sub", ["x", "part"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)]
    constant = helper.make_tensor("spread", TensorProto.FLOAT, [1], [spread])
    return save(path, helper.make_graph(nodes, "mixing", inputs, outputs, [constant]))


def texts(path: Path) -> Path:
    """Words, numbers and truths come back as they are."""
    kinds = {"words": TensorProto.STRING, "ids": TensorProto.INT64, "flags": TensorProto.BOOL}
    nodes = [helper.make_node("Identity", [name], [f"{name}_back"]) for name in kinds]
    inputs = [helper.make_tensor_value_info(name, kind, [ROWS, 2]) for name, kind in kinds.items()]
    outputs = [helper.make_tensor_value_info(f"{name}_back", kind, [ROWS, 2]) for name, kind in kinds.items()]
    return save(path, helper.make_graph(nodes, "texts", inputs, outputs, []))


def test_fewer_rows_are_answered_as_the_same_rows_of_a_whole_batch(tmp_path: Path) -> None:
    artifact = ort_artifact(tmp_path / "made", tiny_cnn(tmp_path / "tiny.onnx", batch=ROWS))
    x = np.random.default_rng(1).normal(size=(ROWS, 1, 28, 28)).astype(np.float32)
    repository(tmp_path / "repo", "plain", {"ort": artifact})
    repository(tmp_path / "repo", "free", {"ort": artifact}, FREE)
    with serving(tmp_path / "repo") as running:
        assert (running.settled("plain"), running.settled("free")) == ("", "")
        whole = running.ask("plain", {"x": x}).outputs["y"]
        assert running.ask("plain", {"x": x[:3]}).status == 400
        for begin, end in ((0, 8), (0, 3), (5, 6), (2, 8)):
            answer = running.ask("free", {"x": x[begin:end]})
            assert answer.status == 200
            np.testing.assert_allclose(answer.outputs["y"], whole[begin:end], rtol=1e-5, atol=1e-6)
        (told,) = json.loads(running.http("GET", "/v2/models/free/stats")[2])["model_stats"]
        assert told["inference_count"] == 8 + 3 + 1 + 6, "the trial at the launch is no request"
        assert running.ask("free", {"x": np.concatenate([x, x])}).status == 400
        metadata = json.loads(running.http("GET", "/v2/models/free")[2])
        assert metadata["inputs"][0]["shape"] == [-1, 1, 28, 28]


@pytest.mark.parametrize("spread", [1.0, 1e-4])
def test_rows_that_know_of_each_other_are_found_out_at_the_launch(tmp_path: Path, spread: float) -> None:
    artifact = ort_artifact(tmp_path / "made", mixing(tmp_path / "mixing.onnx", spread=spread))
    with serving(repository(tmp_path / "repo", "mixing", {"ort": artifact}, FREE)) as running:
        assert "changes with the other rows" in running.settled("mixing")
        status, _, body = running.http("POST", "/v2/models/mixing/infer", b"{}")
        assert status == 503
        assert b"changes with the other rows" in body


def test_text_numbers_and_truths_are_tried_too(tmp_path: Path) -> None:
    artifact = ort_artifact(tmp_path / "made", texts(tmp_path / "texts.onnx"))
    asked = {
        "inputs": [
            {"name": "words", "datatype": "BYTES", "shape": [1, 2], "data": ["one", "two"]},
            {"name": "ids", "datatype": "INT64", "shape": [1, 2], "data": [3, 4]},
            {"name": "flags", "datatype": "BOOL", "shape": [1, 2], "data": [True, False]},
        ]
    }
    with serving(repository(tmp_path / "repo", "texts", {"ort": artifact}, FREE)) as running:
        assert running.settled("texts") == ""
        status, _, body = running.http("POST", "/v2/models/texts/infer", json.dumps(asked).encode())
        assert status == 200
        told = {output["name"]: output["data"] for output in json.loads(body)["outputs"]}
        assert told == {"words_back": ["one", "two"], "ids_back": [3, 4], "flags_back": [True, False]}
