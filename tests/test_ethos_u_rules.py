"""Each rule breaks where it says, in its words, and U85 differs from U55 where Arm says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from npuops.errors import CompileError, UnsupportedModelError
from npuops.models.open import open_model
from npuops.models.placement import Placement, RunsOn
from npuops.targets.ethos_u_configs import Generation
from npuops.targets.ethos_u_rules import advice_for, place_on
from npuops.targets.protocol import CompileOptions, Precision
from npuops.targets.registry import open_target
from npuops.targets.tflite_ops import convert
from qdq_nets import Net, quantize
from test_tflite_ops import CASES, Build, one, pair, resized


def placed(net: Net, output: str, folder: Path, generation: Generation = Generation.U55) -> Placement:
    """The last node."""
    onnx.save(net.model(output), folder / "m.onnx")
    return place_on(open_model(folder / "m.onnx"), generation)[-1]


@pytest.mark.parametrize(
    ("generation", "where"), [(Generation.U55, RunsOn.CPU), (Generation.U65, RunsOn.CPU), (Generation.U85, RunsOn.NPU)]
)
def test_padded_stride_of_four_runs_on_u85_only(generation: Generation, where: RunsOn, tmp_path: Path) -> None:
    net = Net(seed=1)
    y = net.add("Conv", net.input("x", 1, 3, 16, 16), net.weight(4, 3, 5, 5), strides=[4, 4], pads=[1, 1, 1, 1])
    assert placed(net, y, tmp_path, generation).runs_on is where


def test_depthwise_stride_of_four_names_what_was_found(tmp_path: Path) -> None:
    net = Net(seed=1)
    y = net.add("Conv", net.input("x", 1, 4, 16, 16), net.weight(4, 1, 3, 3), strides=[4, 4], group=4)
    place = placed(net, y, tmp_path)
    assert (place.runs_on, place.found) == (RunsOn.CPU, "depthwise stride 4")
    assert "not depthwise" in place.rule


@pytest.mark.parametrize(("factor", "small", "large"), [(2, True, True), (3, False, True), (8, True, True)])
def test_nearest_resizing_by_its_factor(factor: int, small: bool, large: bool, tmp_path: Path) -> None:
    for generation, wanted in ((Generation.U55, small), (Generation.U85, large)):
        net = Net(seed=1)
        size = net.constant(np.array([1, 3, 5 * factor, 5 * factor], np.int64))
        y = net.add("Resize", net.input("x", 1, 3, 5, 5), "", "", size, mode="nearest")
        assert (placed(net, y, tmp_path, generation).runs_on is RunsOn.NPU) is wanted


def test_every_broken_rule_is_named(tmp_path: Path) -> None:
    net = Net(seed=1)
    x = net.input("x", 1, 3, 300, 300)
    y = net.add("MaxPool", x, kernel_shape=[260, 260], dilations=[1, 1], strides=[1, 1])
    place = placed(net, y, tmp_path)
    assert place.found == "kernel [260, 260]"
    net = Net(seed=1)
    y = net.add("Gemm", net.input("x", 4, 1), net.weight(4, 3), transA=1, alpha=2.0)
    place = placed(net, y, tmp_path)
    assert place.found == "transA 1; alpha, beta [2.0, 1.0]"


def test_unknown_operator_and_foreign_dtype_stay_on_the_cpu(tmp_path: Path) -> None:
    net = Net(seed=1)
    assert placed(net, net.add("Erf", net.input("x", 1, 4)), tmp_path).rule == "operator is in the supported list"
    net = Net(seed=1)
    cast = net.add("Flatten", net.add("Cast", net.input("x", 1, 4), to=onnx.TensorProto.FLOAT16))
    net.add("Cast", cast, to=onnx.TensorProto.FLOAT)
    nodes = placed(net, "t2_0", tmp_path)
    assert nodes.runs_on is RunsOn.CPU


def test_batch_norm_counts_where_it_folds_and_not_elsewhere(tmp_path: Path) -> None:
    for conv_first, wanted in ((True, RunsOn.NPU), (False, RunsOn.CPU)):
        net = Net(seed=1)
        x = net.input("x", 1, 3, 8, 8)
        y = net.add("Conv", x, net.weight(3, 3, 1, 1)) if conv_first else net.add("Sigmoid", x)
        four = [net.constant(np.ones(3, np.float32)) for _ in range(4)]
        assert placed(net, net.add("BatchNormalization", y, *four), tmp_path).runs_on is wanted


def test_dynamic_shapes_are_refused_with_the_cure(tmp_path: Path) -> None:
    net = Net(seed=1)
    proto = net.model(net.add("Relu", net.input("x", 1, 4)))
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(proto, tmp_path / "m.onnx")
    model = open_model(tmp_path / "m.onnx")
    assert place_on(model, Generation.U85)[0].runs_on is RunsOn.CPU
    assert "--shape" in advice_for(model)[0].message


def test_tflite_sources_are_judged_by_velas_own_list(shared_models: Path) -> None:
    model = open_model(shared_models / "vision" / "ssd_mobilenet_v1_300_uint8.tflite")
    away = [place.op for place in place_on(model, Generation.U55) if place.runs_on is RunsOn.CPU]
    assert away == ["CUSTOM:TFLite_Detection_PostProcess"]


BEYOND: Mapping[str, Build] = {
    "lopsided average": one("AveragePool", (1, 4, 8, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "average padded at the end": one("AveragePool", (1, 4, 8, 8), kernel_shape=[3, 3], pads=[0, 0, 1, 1]),
    "average same lower": one("AveragePool", (1, 4, 8, 8), kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
    "counted average beyond its pads": one(
        "AveragePool", (1, 4, 9, 9), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, count_include_pad=1
    ),
    "transposed sequence": one("ConvTranspose", (1, 4, 12), (4, 3, 4), (3,), strides=[1]),
    "transposed and more": one("ConvTranspose", (1, 4, 5, 5), (4, 3, 3, 3), strides=[2, 2], output_padding=[1, 1]),
    "transposed to a size": one("ConvTranspose", (1, 4, 5, 5), (4, 3, 3, 3), strides=[2, 2], output_shape=[10, 10]),
    "sum of three": pair("Sum", (1, 4), (1, 4), (1, 4)),
    "largest of one": pair("Max", (1, 4)),
    "depth to space of two": one("DepthToSpace", (2, 12, 3, 5), blocksize=2),
    "constant before the data": lambda net: (net.add("MatMul", net.weight(6, 5), net.input("x", 5, 4)),),
    "nearest, rounded up": resized(10, 10, mode="nearest", nearest_mode="ceil"),
}
"""What the writer refuses although the chip has the operator."""


@pytest.mark.parametrize("case", BEYOND)
def test_what_the_writer_refuses_is_foretold(case: str, tmp_path: Path) -> None:
    net = Net(seed=1)
    qdq = quantize(net.model(*BEYOND[case](net)), net.samples(2), tmp_path)
    with pytest.raises(UnsupportedModelError):
        convert(qdq)
    for generation in (Generation.U55, Generation.U85):
        assert RunsOn.CPU in {place.runs_on for place in place_on(open_model(qdq), generation)}


VELA_FAILS = {("conv long stride", "ethos-u55-128")}
"""Vela 5.2 ends with `Non-passthrough operation (Conv2D) could not run on NPU` instead of placing it on the CPU."""


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["ethos-u55-128", "ethos-u85-256"])
@pytest.mark.parametrize("case", CASES)
def test_rules_foretell_vela_for_every_operator_of_the_writer(case: str, variant: str, tmp_path: Path) -> None:
    pytest.importorskip("ethosu", reason="extra ethos-u is not installed")
    net = Net(seed=len(case))
    model = open_model(quantize(net.model(*CASES[case](net)), net.samples(2), tmp_path))
    target = open_target(f"ethos-u:{variant}")
    foretold = [place.op for place in target.check(model).placement.nodes if place.runs_on is RunsOn.CPU]
    options = CompileOptions(precision=Precision.A8W8)
    if (case, variant) in VELA_FAILS:
        assert foretold == ["Conv"]
        with pytest.raises(CompileError, match="could not run on NPU"):
            target.compile(model, options, tmp_path)
        return
    placed = target.compile(model, options, tmp_path).placement
    assert bool(foretold) == any(place.runs_on is RunsOn.CPU for place in placed)


def test_a_mean_of_something_of_unknown_rank_is_judged_not_crashed_on(tmp_path: Path) -> None:
    node = onnx.helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3])
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([node], "g", [value("x", 1, None)], [value("y", 1, None)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    assert place_on(open_model(tmp_path / "m.onnx"), Generation.U55)[0].runs_on is RunsOn.CPU
