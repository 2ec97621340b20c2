"""`npuops inspect`: the contract of its JSON, what people see, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import helper

from hostile_models import net, relu
from npuops.cli.model_argument import model_file
from npuops.cli.shape_flag import parse_shapes
from npuops.errors import OptionError
from toy_artifact import npuops

KEYS = {
    "schema",
    "model",
    "format",
    "digest",
    "opset",
    "producer",
    "file_bytes",
    "inputs",
    "outputs",
    "static",
    "quantized",
    "layers",
    "ops",
    "macs",
    "weight_bytes",
    "peak_activation_bytes",
    "heaviest",
    "facts",
}


def test_the_json_is_the_documented_contract(mobilenet: Path) -> None:
    done = npuops("inspect", mobilenet, "--json", "--top", "3")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert set(found) == KEYS
    assert found["schema"] == "npuops.inspect/1"
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 3, 224, 224]}]
    assert found["ops"]["Conv"] == 53
    assert round(found["macs"] / 1e6, 1) == 300.8
    assert len(found["heaviest"]) == 3
    assert found["heaviest"][0]["macs"] >= found["heaviest"][1]["macs"]
    text = (Path(__file__).parent.parent / "docs" / "inspect.md").read_text(encoding="utf-8")
    assert [key for key in KEYS if f"`{key}`" not in text] == []


def test_people_see_totals_the_heaviest_layers_and_the_facts(shared_models: Path) -> None:
    done = npuops("inspect", shared_models / "vision/ssd_mobilenet_v1_300_uint8.tflite")
    assert done.returncode == 0
    for words in ("728.0 M", "CONV_2D 34", "TFLite_Detection_PostProcess", "conv_2d_26", "custom-op"):
        assert words in done.stdout


def test_a_shape_fixes_a_dynamic_model(tmp_path: Path) -> None:
    model = relu()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, tmp_path / "m.onnx")
    assert "dynamic-shape" in npuops("inspect", tmp_path / "m.onnx").stdout
    done = npuops("inspect", tmp_path / "m.onnx", "--shape", "x=7x4", "--json")
    assert json.loads(done.stdout)["outputs"][0]["shape"] == [7, 4]


def test_names_from_the_file_are_shown_as_they_are_and_bounded(tmp_path: Path) -> None:
    names = ["x", *(f"[bold]{'n' * 5000}{i}\x1b[31m" for i in range(30))]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in zip(names, [*names[1:], "y"], strict=True)]
    onnx.save(net(*nodes), tmp_path / "m.onnx")
    done = npuops("inspect", tmp_path / "m.onnx")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert len(done.stdout) < 3000


@pytest.mark.parametrize("text", ["x", "x=", "=1x3", "x=1x", "x=1,3", "x=0x3", "x=-1x3", "x=1x3x99999999999999"])
def test_a_shape_that_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        parse_shapes([text])


def test_shapes_are_read() -> None:
    assert parse_shapes(["a:0=1x3x224x224", "b=c=5"]) == {"a:0": (1, 3, 224, 224), "b=c": (5,)}
    with pytest.raises(OptionError, match="twice"):
        parse_shapes(["a=1", "a=2"])


def test_a_file_that_is_no_model_ends_with_2_and_advice(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x1f\x8b rest")
    done = npuops("inspect", tmp_path / "m.onnx")
    assert done.returncode == 2
    assert "gzip" in done.stderr
    assert "advice:" in done.stderr


def test_a_model_of_the_zoo_is_named_instead_of_a_path() -> None:
    assert model_file("zoo:digits-cnn").is_file()
    assert model_file("zoo/digits-cnn.onnx") == Path("zoo/digits-cnn.onnx")
    with pytest.raises(OptionError) as caught:
        model_file("zoo:digit-cnn")
    assert "digits-cnn" in caught.value.advice
