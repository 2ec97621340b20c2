"""The ONNX file is the network, and every target's rules and toolchains take it whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from made_states import made_state
from made_weights import noisy_weights
from npuops.errors import DataError, OptionError
from npuops.hostsched.scorer import SHAPE, encode, encode_levels, feeds
from npuops.hostsched.scorer_network import forward
from npuops.models.open import open_model
from npuops.schedlab.export_onnx import onnx_bytes, write_onnx
from npuops.targets.registry import open_target

WEIGHTS = noisy_weights(SHAPE, 7)
NPUS = (
    *("ort-cpu", "qnn-htp:sm8650", "ethos-u:ethos-u85-256", "ethos-u:ethos-u55-128"),
    *("vnpu:rk3588", "vnpu:hexagon-v75", "vnpu:coral-edgetpu", "vnpu:intel-npu-4", "vnpu:ethos-u85-512"),
)


@pytest.mark.parametrize(("tasks", "candidates"), [(1, 1), (5, 64), (16, 100)])
def test_the_file_computes_what_numpy_computes(tmp_path: Path, tasks: int, candidates: int) -> None:
    path = write_onnx(tmp_path / "scorer.onnx", WEIGHTS, SHAPE, candidates)
    scene = encode(made_state(tasks, 1))
    chosen = np.random.default_rng(2).integers(0, SHAPE.levels, (candidates, tasks)).astype(np.int8)
    levels = encode_levels(scene, chosen)
    faces, waits, switches = forward(WEIGHTS, scene.tasks, scene.history, scene.host, levels, scene.repeats)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = dict(
        zip(("faces", "waits", "switches"), session.run(None, feeds(scene, levels, SHAPE, candidates)), strict=True)
    )
    np.testing.assert_allclose(found["faces"][0].transpose(1, 2, 0)[:, :tasks], faces[:, :tasks], atol=1e-5)
    np.testing.assert_allclose(found["waits"].reshape(-1)[:tasks], waits[:tasks], atol=1e-5)
    np.testing.assert_allclose(found["switches"].reshape(-1), switches, atol=1e-5)


@pytest.mark.parametrize("target", NPUS)
@pytest.mark.parametrize("candidates", [64, 4096])
def test_every_node_is_placed_on_the_npu(tmp_path: Path, target: str, candidates: int) -> None:
    path = write_onnx(tmp_path / "scorer.onnx", WEIGHTS, SHAPE, candidates)
    report = open_target(target).check(open_model(path))
    assert [f"{node.name}: {node.rule}, {node.found}" for node in report.placement.nodes if node.runs_on != "npu"] == []


def test_the_same_weights_give_the_same_bytes() -> None:
    assert onnx_bytes(WEIGHTS, SHAPE, 8) == onnx_bytes(dict(reversed(WEIGHTS.items())), SHAPE, 8)


def test_what_cannot_be_a_graph_is_refused() -> None:
    with pytest.raises(OptionError, match="candidates"):
        onnx_bytes(WEIGHTS, SHAPE, 0)
    with pytest.raises(OptionError, match="candidates"):
        onnx_bytes(WEIGHTS, SHAPE, 4097)
    with pytest.raises(DataError, match="another network"):
        onnx_bytes({}, SHAPE, 4)
