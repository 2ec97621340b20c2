from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from npuops.artifacts.evidence import Divergence
from npuops.artifacts.manifest import Artifact
from npuops.build.localise import _divergence, around_first, engine_divergence, expose_tensors
from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import Samples, make_samples
from onnx_models import mlp


def samples() -> Samples:
    rng = np.random.default_rng(0)
    return make_samples([{"x": rng.normal(size=(1, 16)).astype(np.float32)} for _ in range(4)], source="normal")


def level(name: str, sqnr_db: float | None) -> Divergence:
    return Divergence(node=name, tensor=name, sqnr_db=sqnr_db, cosine=None)


def test_every_float_tensor_inside_becomes_an_output_and_answers_stay(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    found = expose_tensors(model, tmp_path / "probe.onnx")
    assert [node for node, _ in found] == ["gemm_1", "relu", "gemm_2", "softmax"]
    wanted, got = run_reference(model, samples()), run_reference(tmp_path / "probe.onnx", samples())
    assert np.array_equal(wanted["y"], got["y"])
    assert {"h", "r", "z"} <= set(got)


def test_a_node_without_a_name_goes_by_its_tensor(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    proto = onnx.load(model)
    for node in proto.graph.node:
        node.name = ""
    onnx.save(proto, model)
    assert expose_tensors(model, tmp_path / "probe.onnx") == [(name, name) for name in ("h", "r", "z", "y")]


@pytest.mark.parametrize(
    ("levels", "first", "shown"),
    [
        ([40.0, 38.0, 36.0, 3.0, 2.0, 1.0, 0.0, -1.0, -2.0], "t3", ["t0", "t1", "t2", "t3", "t4", "t5", "t6"]),
        ([None, None, 2.0], "t2", ["t0", "t1", "t2"]),
        ([40.0, 20.0, 30.0], "t1", ["t0", "t1", "t2"]),
    ],
)
def test_the_window_is_around_the_first_that_diverges_or_the_worst(
    levels: list[float | None], first: str, shown: list[str]
) -> None:
    window = around_first([level(f"t{index}", value) for index, value in enumerate(levels)])
    assert [tensor.tensor for tensor in window] == shown
    assert first in shown


def test_a_toolchain_that_breaks_one_node_is_found_at_that_node(tmp_path: Path) -> None:
    """The "toolchain" compiles gemm_2 with its weights turned around; everything before it is right."""

    def build_probe(path: Path, folder: Path) -> Artifact:
        proto = onnx.load(path)
        for item in proto.graph.initializer:
            if item.name == "w2":
                item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item)[::-1].copy(), "w2"))
        onnx.save(proto, folder / "broken.onnx")
        return Artifact(root=folder, manifest=None)  # type: ignore[arg-type]

    def run_probe(artifact: Artifact, few: Samples) -> dict[str, np.ndarray]:
        return run_reference(artifact.root / "broken.onnx", few)

    model = mlp(tmp_path / "m.onnx")
    window = engine_divergence(model, samples(), build_probe, run_probe)
    assert list(tmp_path.iterdir()) == [model], "the workspace of a build, where a killed one is swept"
    levels = {tensor.node: tensor.sqnr_db for tensor in window}
    assert levels["gemm_1"] is None, "equal so far"
    assert levels["relu"] is None
    assert levels["gemm_2"] is not None
    assert levels["gemm_2"] < 12


def answers(spoil: dict[str, np.ndarray], tmp_path: Path) -> dict[str, float | None]:
    """Node → level, of an engine that answers as the reference, but for the tensors in `spoil`."""

    def run_probe(artifact: Artifact, few: Samples) -> dict[str, np.ndarray]:
        return {**run_reference(artifact.root / "copy.onnx", few), **spoil}

    def build_probe(path: Path, folder: Path) -> Artifact:
        shutil.copyfile(path, folder / "copy.onnx")
        return Artifact(root=folder, manifest=None)  # type: ignore[arg-type]

    window = engine_divergence(mlp(tmp_path / "m.onnx"), samples(), build_probe, run_probe)
    return {tensor.node: tensor.sqnr_db for tensor in window}


def test_a_tensor_of_nan_diverges_and_is_not_taken_for_equal(tmp_path: Path) -> None:
    levels = answers({"r": np.full((2, 1, 32), np.nan, np.float32)}, tmp_path)
    assert levels == {"gemm_1": None, "relu": -200.0, "gemm_2": None, "softmax": None}


def test_a_tensor_that_the_engine_gives_in_another_shape_is_left_out(tmp_path: Path) -> None:
    assert "relu" not in answers({"r": np.zeros((2, 32, 1), np.float32)}, tmp_path)


def test_infinity_in_the_reference_itself_is_no_divergence() -> None:
    mask = np.array([[0.0, -np.inf]])
    assert _divergence("mask", "m", mask, mask).sqnr_db is None
    assert _divergence("mask", "m", np.array([[0.0, -1e4]]), mask).sqnr_db is None
