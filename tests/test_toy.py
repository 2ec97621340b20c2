"""The toy's arithmetic, judged by ONNX Runtime: it is the target that people read before they write one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from npuops.artifacts.manifest import Artifact
from npuops.errors import CompileError, IncompatibleArtifactError, OptionError, ToolchainError
from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import Samples
from npuops.models.placement import RunsOn
from npuops.targets.protocol import Precision
from npuops.targets.toy import ToyTarget
from npuops.units import Basis
from onnx_models import mlp, save
from ort_targets import build, random_feeds, run_all


def one_node(
    path: Path, op: str, of_x: list[int], of_y: list[int], constants: dict[str, Any], opset: int, **attributes: Any
) -> Path:
    node = helper.make_node(op, ["x", *constants], ["y"], name="node", **attributes)
    values = {"x": of_x, "y": of_y}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]
    held = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    return save(helper.make_graph([node], "g", infos[:1], infos[1:], held), path, opset=opset)


W = np.arange(12).reshape(4, 3) / 10


@pytest.mark.parametrize(
    ("op", "of_x", "of_y", "constants", "opset", "attributes"),
    [
        ("Softmax", [1, 2, 3], [1, 2, 3], {}, 17, {}),
        ("Softmax", [1, 2, 3], [1, 2, 3], {}, 17, {"axis": 1}),
        ("Softmax", [1, 2, 3], [1, 2, 3], {}, 12, {}),
        ("Softmax", [1, 2, 3], [1, 2, 3], {}, 11, {"axis": -1}),
        ("Flatten", [1, 2, 3, 4], [1, 24], {}, 17, {}),
        ("Flatten", [1, 2, 3, 4], [1, 24], {}, 17, {"axis": 0}),
        ("Flatten", [1, 2, 3, 4], [6, 4], {}, 17, {"axis": -1}),
        ("Gemm", [2, 4], [2, 3], {"w": W}, 17, {}),
        ("Gemm", [4, 2], [2, 3], {"w": W, "b": [1, 2, 3]}, 17, {"transA": 1, "alpha": 0.5, "beta": 2.0}),
        ("Gemm", [2, 4], [2, 3], {"w": W.T, "b": [[1], [2]]}, 17, {"transB": 1}),
        ("MatMul", [1, 2, 4], [1, 2, 3], {"w": W}, 17, {}),
        ("Add", [2, 3], [2, 3], {"w": [1, 2, 3]}, 17, {}),
        ("Relu", [2, 3], [2, 3], {}, 17, {}),
    ],
)
def test_every_kernel_means_what_onnx_means(
    op: str,
    of_x: list[int],
    of_y: list[int],
    constants: dict[str, Any],
    opset: int,
    attributes: dict[str, Any],
    tmp_path: Path,
) -> None:
    model = one_node(tmp_path / "m.onnx", op, of_x, of_y, constants, opset, **attributes)
    feeds = random_feeds(model, 1)
    got = run_all(build("toy", model, Precision.FP32, tmp_path / "o"), feeds)
    wanted = run_reference(model, Samples(inputs=tuple(feeds), source="random", digest=""))
    np.testing.assert_allclose(got[0]["y"], wanted["y"][0], rtol=1e-5)


def test_what_the_chip_lacks_is_refused_with_every_node_and_its_rule(tmp_path: Path) -> None:
    model = one_node(tmp_path / "m.onnx", "Sin", [1, 2], [1, 2], {}, 17)
    with pytest.raises(CompileError, match=r"node \(Sin\): operator is in the supported list, found Sin"):
        build("toy", model, Precision.FP32, tmp_path / "o")


@pytest.mark.parametrize("precision", [Precision.A8W8, Precision.BF16])
def test_another_precision_is_refused(precision: Precision, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"cannot do {precision}"):
        build("toy", mlp(tmp_path / "m.onnx"), precision, tmp_path / "o")


def test_a_damaged_program_is_a_clear_error(tmp_path: Path) -> None:
    artifact = build("toy", mlp(tmp_path / "m.onnx"), Precision.FP32, tmp_path / "o")
    artifact.entry.write_bytes(artifact.entry.read_bytes()[:-7])
    with pytest.raises(ToolchainError, match=r"cannot load program\.toy"):
        run_all(artifact, [])
    artifact.entry.write_bytes(b"toy program 0\n")
    with pytest.raises(IncompatibleArtifactError, match="is not a toy program"):
        run_all(artifact, [])


def test_a_profile_has_each_node_once_in_order(tmp_path: Path) -> None:
    artifact: Artifact = build("toy", mlp(tmp_path / "m.onnx"), Precision.FP32, tmp_path / "o")
    profile = ToyTarget().profile(artifact, random_feeds(tmp_path / "m.onnx", 1)[0])
    assert [cost.name for cost in profile.ops] == ["gemm_1", "relu", "gemm_2", "softmax"]
    assert (profile.basis, profile.unit, {cost.runs_on for cost in profile.ops}) == (
        Basis.MEASURED,
        "us",
        {RunsOn.NPU},
    )
