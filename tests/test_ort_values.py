"""Bfloat16 through ONNX Runtime's Python side, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from npuops.errors import UnsupportedModelError
from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import make_samples
from npuops.models.open import open_model
from npuops.targets.protocol import Precision
from npuops.targets.registry import open_target
from ort_targets import build, run_all
from served_artifacts import save

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
EVERY_BIT = np.arange(1 << 16, dtype=np.uint16).view(BFLOAT16).reshape(-1, 4)
"""All bfloat16 there are, NaN and infinities with them."""


def mixed(path: Path, *, text: bool = False, gives: bool = True, rows: int | str = "N") -> Path:
    """`x` bfloat16 comes back, and as `wide` float32; `n` int64 comes back, and with `text` so does `t`."""
    kinds = {"x": TensorProto.BFLOAT16, "n": TensorProto.INT64} | ({"t": TensorProto.STRING} if text else {})
    back = [name for name in kinds if gives or name != "x"]
    nodes = [helper.make_node("Identity", [name], [f"{name}_back"]) for name in back]
    nodes.append(helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT))
    inputs = [helper.make_tensor_value_info(name, kind, [rows, 4]) for name, kind in kinds.items()]
    outputs = [helper.make_tensor_value_info(f"{name}_back", kinds[name], [rows, 4]) for name in back]
    outputs.append(helper.make_tensor_value_info("wide", TensorProto.FLOAT, [rows, 4]))
    return save(path, helper.make_graph(nodes, "mixed", inputs, outputs))


def test_every_bfloat16_comes_back_bit_for_bit_beside_other_dtypes(tmp_path: Path) -> None:
    artifact = build("ort-cpu", mixed(tmp_path / "m.onnx"), Precision.FP32, tmp_path / "a")
    feeds: list[dict[str, Any]] = [
        {"x": x, "n": np.arange(x.size).reshape(x.shape)} for x in (EVERY_BIT, EVERY_BIT[::-1], EVERY_BIT[:0])
    ]
    for feed, got in zip(feeds, run_all(artifact, feeds), strict=True):
        assert got["x_back"].dtype == BFLOAT16
        assert got["x_back"].shape == feed["x"].shape
        assert got["x_back"].tobytes() == feed["x"].tobytes()
        assert np.array_equal(got["wide"], feed["x"].astype(np.float32), equal_nan=True)
        assert np.array_equal(got["n_back"], feed["n"])


def test_text_may_stand_beside_bfloat16_that_goes_in(tmp_path: Path) -> None:
    artifact = build("ort-cpu", mixed(tmp_path / "m.onnx", text=True, gives=False), Precision.FP32, tmp_path / "a")
    x, words = EVERY_BIT[4000:4002], np.array([["a", "é", "", "b"]] * 2, object)
    (got,) = run_all(artifact, [{"x": x, "n": np.zeros((2, 4), np.int64), "t": words}])
    assert np.array_equal(got["wide"], x.astype(np.float32))
    assert got["t_back"].tolist() == words.tolist()


def test_text_beside_bfloat16_that_comes_out_is_refused_before_any_request(tmp_path: Path) -> None:
    model = mixed(tmp_path / "m.onnx", text=True)
    with pytest.raises(UnsupportedModelError, match="'t' is text and an output is bfloat16") as caught:
        build("ort-cpu", model, Precision.FP32, tmp_path / "a")
    assert "cast the output" in caught.value.advice


def test_the_reference_of_a_build_runs_bfloat16_too(tmp_path: Path) -> None:
    model = mixed(tmp_path / "m.onnx")
    x = EVERY_BIT[4000:4001]
    found = run_reference(model, make_samples([{"x": x, "n": np.zeros((1, 4), np.int64)}] * 2, source="test"))
    assert found["x_back"].dtype == BFLOAT16
    assert found["wide"].tolist() == [x.astype(np.float32).tolist()] * 2


@pytest.mark.parametrize("target", ["ort-cpu", "openvino"])
def test_bfloat16_is_twice_itself_on_every_engine_that_takes_it(tmp_path: Path, target: str) -> None:
    if not open_target(target).probe().available:
        pytest.skip(f"{target} is not installed")
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["f", "f"], ["d"]),
        helper.make_node("Cast", ["d"], ["y"], to=TensorProto.BFLOAT16),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, [1, 4]) for name in "xy"]
    model = save(tmp_path / "m.onnx", helper.make_graph(nodes, "double", ends[:1], ends[1:]))
    assert [tensor.dtype for tensor in open_model(model).inputs] == ["bfloat16"]
    x = np.array([[1, -2.5, 3e38 / 4, 0.0078125]], BFLOAT16)
    (got,) = run_all(build(target, model, Precision.FP32, tmp_path / "a"), [{"x": x}])
    assert got["y"].dtype == BFLOAT16
    assert got["y"].tolist() == (x + x).tolist()
