from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from conftest import ROOT
from npuops.errors import IntegrityError, OptionError
from npuops.models.onnx_file import read_onnx
from npuops.models.open import open_model
from npuops.models.zoo import ZooModel, zoo, zoo_model
from training import training_python

RECIPE = ROOT / "examples" / "zoo" / "train.py"
QAT_EXAMPLE = ROOT / "examples" / "qat" / "qat_digits.py"
NAMES = [model.name for model in zoo()]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(zoo()[0].card.parent, tmp_path / "zoo"))


def right_answers(model: ZooModel) -> float:
    session = ort.InferenceSession(model.model, providers=["CPUExecutionProvider"])
    with np.load(model.evaluation) as data:
        answers = [session.run(None, {"image": image})[0].argmax() for image in data["image"]]
        return float(np.mean(np.array(answers) == data["labels"]))


def test_the_zoo_holds_a_cnn_and_a_transformer_and_is_small() -> None:
    assert NAMES == ["digits-cnn", "digits-transformer"]
    assert sum(path.stat().st_size for path in zoo()[0].card.parent.iterdir()) < 1_000_000


@pytest.mark.parametrize("name", NAMES)
def test_the_model_answers_as_well_as_its_card_says(name: str) -> None:
    model = zoo_model(name)
    assert right_answers(model) == pytest.approx(model.accuracy, abs=0.003)
    assert model.accuracy >= {"digits-cnn": 0.985, "digits-transformer": 0.96}[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_valid_static_onnx_with_named_weights(name: str) -> None:
    graph = onnx.load(zoo_model(name).model)
    onnx.checker.check_model(graph, full_check=True)
    assert [dim.dim_value for dim in graph.graph.input[0].type.tensor_type.shape.dim] == [1, 1, 8, 8]
    assert not [weight.name for weight in graph.graph.initializer if "::" in weight.name]
    assert max(opset.version for opset in graph.opset_import) >= 17


def test_the_transformer_has_its_special_operators_whole() -> None:
    ops = {node.op_type for node in onnx.load(zoo_model("digits-transformer").model).graph.node}
    assert {"LayerNormalization", "Gelu", "Softmax", "MatMul"} <= ops
    assert "Erf" not in ops


def test_calibration_and_evaluation_data_do_not_overlap_and_cover_all_classes() -> None:
    model = zoo_model("digits-cnn")
    with np.load(model.calibration) as calibration, np.load(model.evaluation) as evaluation:
        assert calibration["image"].shape == (64, 1, 1, 8, 8)
        assert evaluation["image"].shape == (360, 1, 1, 8, 8)
        assert calibration["image"].dtype == evaluation["image"].dtype == np.float32
        assert set(calibration["labels"]) == set(evaluation["labels"]) == set(range(10))
        seen = {image.tobytes() for image in calibration["image"]}
        assert not [image for image in evaluation["image"] if image.tobytes() in seen]
    assert model.class_names() == tuple("0123456789")


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(OptionError) as caught:
        zoo_model("digit-cnn")
    assert "digits-cnn" in caught.value.advice


@pytest.mark.parametrize("name", ["digits-cnn.onnx", "digits-evaluation.npz", "digits-labels.txt"])
def test_a_flipped_bit_in_any_file_refuses_to_open(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(IntegrityError, match=name):
        zoo_model("digits-cnn", copy)


def test_a_missing_file_and_a_broken_card_are_clear_errors(copy: Path) -> None:
    card = json.loads((copy / "zoo.json").read_text())
    (copy / "digits-labels.txt").unlink()
    with pytest.raises(IntegrityError, match="labels"):
        zoo(copy)
    (copy / "zoo.json").write_text(json.dumps(card | {"schema": "other/9"}))
    with pytest.raises(IntegrityError, match="other/9"):
        zoo(copy)
    (copy / "zoo.json").write_text("{")
    with pytest.raises(IntegrityError, match="not the card"):
        zoo(copy)
    (copy / "zoo.json").unlink()
    with pytest.raises(IntegrityError, match="cannot read"):
        zoo(copy)


def test_a_card_cannot_point_at_a_file_that_it_does_not_vouch_for(copy: Path) -> None:
    card = json.loads((copy / "zoo.json").read_text())
    card["models"][0]["model"] = "../outside.onnx"
    (copy / "zoo.json").write_text(json.dumps(card))
    with pytest.raises(IntegrityError, match="outside"):
        zoo(copy)


def test_the_wheel_carries_every_file_of_the_zoo(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    folder = zoo()[0].card.parent
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        for path in folder.iterdir():
            assert wheel.read(f"npuops/models/zoo_data/{path.name}") == path.read_bytes()


def test_the_card_lists_the_digest_of_every_bundled_file() -> None:
    card = zoo()[0].card
    listed = json.loads(card.read_text())["sha256"]
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in card.parent.iterdir() if p != card}
    assert listed == found


@pytest.mark.slow
def test_the_recipe_trains_the_committed_zoo_again() -> None:
    python = training_python("torch", "sklearn", "onnxscript")
    done = subprocess.run(
        [python, str(RECIPE), "--check", str(zoo()[0].card.parent)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "digits-cnn.onnx: committed" in done.stdout


@pytest.fixture(scope="module")
def trained_quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = training_python("torch", "torchao", "sklearn", "onnxscript")
    out = tmp_path_factory.mktemp("qat") / "digits-cnn-qat.onnx"
    done = subprocess.run([python, str(QAT_EXAMPLE), "--out", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "quantized epoch 4/4" in done.stdout
    return out


@pytest.mark.slow
def test_the_qat_example_trains_a_quantized_model_as_good_as_the_float_one(trained_quantized: Path) -> None:
    model = zoo_model("digits-cnn")
    session = ort.InferenceSession(trained_quantized, providers=["CPUExecutionProvider"])
    with np.load(model.evaluation) as data:
        answers = [session.run(None, {"image": image})[0].argmax() for image in data["image"]]
        right = float(np.mean(np.array(answers) == data["labels"]))
    assert right >= model.accuracy - 0.01


@pytest.mark.slow
def test_the_qat_file_is_a_quantized_model_of_integers_throughout(trained_quantized: Path) -> None:
    assert open_model(trained_quantized).is_quantized
    graph = read_onnx(trained_quantized).graph
    makers = {output: node.op_type for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear", "Relu"}:
            sources = [makers[name] for name in node.input if name in makers]
            assert set(sources) == {"DequantizeLinear"}, node.name
    floats = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    scales = {node.input[1] for node in graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}}
    assert [tensor.name for tensor in floats if tensor.name not in scales] == []
    assert {makers[node.input[2]] for node in graph.node if node.op_type in {"Conv", "Gemm"}} == {"DequantizeLinear"}
