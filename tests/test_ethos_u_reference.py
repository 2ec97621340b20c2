"""Both references on random networks, and the conversion of tensors at their ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.quantization import QuantType

from npuops.errors import DataError, IncompatibleArtifactError, RunError
from npuops.targets.ethos_u_reference import REFERENCES, from_stored, to_stored
from npuops.targets.tflite_ops import TfliteIo
from qdq_nets import Net, quantize, reference_artifact, run_qdq, run_reference

pytest.importorskip("ai_edge_litert", reason="extra ethos-u is not installed")


def random_net(seed: int) -> tuple[Net, tuple[str, ...]]:
    """A chain of convolutions, pools, sums and joins of random kinds and sizes, then a classifier."""
    net = Net(seed=seed)
    width, size = int(net.random.integers(3, 7)), int(net.random.integers(9, 15))
    x = net.input("x", 1, width, size, size)
    for _ in range(2):
        kind = net.random.choice(["conv", "strided", "depthwise", "residual", "pool", "join"])
        if kind == "depthwise":
            x = net.add("Conv", x, net.weight(width, 1, 3, 3), net.weight(width), group=width, pads=[1, 1, 1, 1])
        elif kind == "residual":
            y = net.add("Conv", x, net.weight(width, width, 3, 3), net.weight(width), pads=[1, 1, 1, 1])
            x = net.add("Add", x, y)
        elif kind == "pool":
            op = str(net.random.choice(["MaxPool", "AveragePool"]))
            x = net.add(op, x, kernel_shape=[2, 2], strides=[2, 2])
        elif kind == "join":
            a = net.add("Conv", x, net.weight(2, width, 1, 1), net.weight(2))
            x, width = net.add("Concat", x, a, axis=1), width + 2
        else:
            wide = int(net.random.integers(3, 9))
            stride = 2 if kind == "strided" else 1
            weights = net.weight(wide, width, 3, 3), net.weight(wide)
            x = net.add("Conv", x, *weights, pads=[1, 1, 1, 1], strides=[stride, stride])
            x, width = net.add("Relu", x), wide
    y = net.add("Flatten", net.add("GlobalAveragePool", x))
    return net, (net.add("Gemm", y, net.weight(width, 6), net.weight(6)),)


@pytest.mark.slow
@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8])
@pytest.mark.parametrize("seed", range(6))
def test_random_networks_agree_with_onnx_runtime_and_bit_for_bit_with_each_other(
    seed: int, activations: QuantType, tmp_path: Path
) -> None:
    net, outputs = random_net(seed)
    qdq = quantize(net.model(*outputs), net.samples(8), tmp_path, activation_type=activations)
    artifact, converted = reference_artifact(qdq, net.samples(1)[0], tmp_path)
    for feeds in net.samples(2, seed=77):
        got, raw = run_reference("litert", artifact, feeds)
        _, tosa = run_reference("tosa", artifact, feeds)
        wanted = run_qdq(qdq, feeds)
        for port in converted.outputs:
            apart = np.abs(got[port.name] - wanted[port.name]) / port.scale
            assert apart.max() <= 2.01, "one level for each operator at most, and roundings mostly cancel"
            assert np.array_equal(raw[port.name], tosa[port.name])


def test_sessions_refuse_wrong_inputs_survive_and_end_for_good(tmp_path: Path) -> None:
    net, outputs = random_net(1)
    qdq = quantize(net.model(*outputs), net.samples(4), tmp_path)
    feeds = net.samples(1)[0]
    artifact, _ = reference_artifact(qdq, feeds, tmp_path)
    for runner in REFERENCES.values():
        session = runner.open(artifact)
        before = session.run(feeds)[outputs[0]]
        with pytest.raises(DataError):
            session.run({"x": feeds["x"][:, :1]})
        assert np.array_equal(session.run(feeds)[outputs[0]], before)
        session.close()
        session.close()
        with pytest.raises(RunError, match="closed"):
            session.run(feeds)


@pytest.mark.parametrize("text", ["", "{", '{"schema": "npuops.tflite-io/9"}', "[]"])
def test_damaged_io_description_is_refused(text: str, tmp_path: Path) -> None:
    net, outputs = random_net(1)
    qdq = quantize(net.model(*outputs), net.samples(4), tmp_path)
    artifact, _ = reference_artifact(qdq, net.samples(1)[0], tmp_path)
    (tmp_path / "model.io.json").write_text(text)
    with pytest.raises(IncompatibleArtifactError, match=r"model\.io\.json"):
        REFERENCES["litert"].open(artifact)


def test_io_description_names_axes_and_scale(tmp_path: Path) -> None:
    net, outputs = random_net(1)
    qdq = quantize(net.model(*outputs), net.samples(4), tmp_path)
    reference_artifact(qdq, net.samples(1)[0], tmp_path)
    port = json.loads((tmp_path / "model.io.json").read_text())["inputs"][0]
    assert (port["name"], port["dtype"], port["axes"]) == ("x", "float32", [0, 2, 3, 1])
    assert port["scale"] > 0


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8"])
def test_tensors_survive_the_way_in_and_out(dtype: str) -> None:
    io = TfliteIo(name="x", dtype=dtype, shape=(1, 3, 4, 5), axes=(0, 2, 3, 1), scale=0.5, zero_point=-3)
    levels = np.random.default_rng(0).integers(-100, 100, size=io.shape)
    source = {"float32": levels * 0.5, "uint8": levels + 128, "int8": levels}[dtype].astype(dtype)
    stored = to_stored(source, io)
    assert (stored.shape, stored.dtype) == ((1, 4, 5, 3), np.int8)
    assert np.array_equal(from_stored(stored, io), source)


def test_values_beyond_the_range_saturate_and_halves_round_to_even() -> None:
    io = TfliteIo(name="x", dtype="float32", shape=(5,), axes=(0,), scale=1.0, zero_point=0)
    source = np.array([1e9, -1e9, 0.5, 1.5, -2.5], np.float32)
    assert to_stored(source, io).tolist() == [127, -128, 0, 2, -2]
