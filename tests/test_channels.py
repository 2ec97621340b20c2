from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import Samples
from npuops.models.onnx_file import read_onnx
from npuops.models.zoo import zoo_model
from npuops.rewrite.channels import Channels

RNG = np.random.default_rng(11)


def net(text: str, *, opset: int = 17, ir_version: int = 8, **weights: tuple[int, ...]) -> onnx.ModelProto:
    """A graph in ONNX's text form; its weights are random, of the given shapes, and positive where named `scale`."""
    model = onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}]> g {text}')
    for name, shape in weights.items():
        values = RNG.standard_normal(shape)
        values = np.abs(values) + 0.5 if name.startswith("scale") else values
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype("f4"), name))
        if ir_version < 4:
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, 1, shape))
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return model


def noise(model: onnx.ModelProto, count: int = 4) -> Samples:
    stored = {tensor.name for tensor in model.graph.initializer}
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
        if value.name not in stored
    }
    inputs = tuple(
        {name: RNG.uniform(-1, 1, shape).astype("f4") for name, shape in shapes.items()} for _ in range(count)
    )
    return Samples(inputs=inputs, labels=None, source="noise", digest="sha256:0")


def silenced(channels: Channels, removed: frozenset[int]) -> onnx.ModelProto:
    """The whole model with every weight of the removed channels at zero: what the smaller one must compute."""
    model = onnx.ModelProto()
    model.CopyFrom(channels._model)
    values = {tensor.name: onnx.numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer}
    for part in channels._trace.slices:
        stays = channels._stays(part.ids, removed)
        name = part.node.input[part.operand]
        np.moveaxis(values[name], part.axis, 0)[~stays] = 0
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(values[tensor.name], tensor.name))
    return model


def check_equal_to_silenced(model: onnx.ModelProto, sparsity: float = 0.5, *, together: bool = False) -> Channels:
    channels = Channels(model)
    removed = channels.lowest(sparsity, together=together)
    assert removed
    smaller = channels.without(removed)
    onnx.checker.check_model(smaller, full_check=True)
    samples = noise(model)
    wanted = run_reference(silenced(channels, removed), samples)
    got = run_reference(smaller, samples)
    for name, values in wanted.items():
        assert np.abs(values).max() > 0
        np.testing.assert_allclose(got[name], values, rtol=1e-3, atol=1e-4 * np.abs(values).max())
    return channels


def widths(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


@pytest.mark.parametrize("together", [False, True])
def test_the_zoo_cnn_without_channels_computes_what_it_does_with_silent_ones(together: bool) -> None:
    check_equal_to_silenced(read_onnx(zoo_model("digits-cnn").model), together=together)


def test_the_zoo_transformer_without_channels_computes_what_it_does_with_silent_ones() -> None:
    check_equal_to_silenced(read_onnx(zoo_model("digits-transformer").model))


def test_mobilenet_without_channels_computes_what_it_does_with_silent_ones(mobilenet: Path) -> None:
    check_equal_to_silenced(read_onnx(mobilenet), 0.3)


def test_batch_norm_prelu_and_a_flattened_linear_layer_follow() -> None:
    model = net(
        """(float[1,3,8,8] x) => (float[1,5] y) {
            a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
            n = BatchNormalization(a, scale1, m1, m2, scale2)
            p = PRelu(n, slope)
            f = Flatten(p)
            y = Gemm<transB=1>(f, w2, b2)
        }""",
        w1=(8, 3, 3, 3), b1=(8,), scale1=(8,), m1=(8,), m2=(8,), scale2=(8,), slope=(8, 1, 1), w2=(5, 512), b2=(5,)
    )  # fmt: skip
    channels = check_equal_to_silenced(model)
    smaller = widths(channels.without(channels.lowest(0.5, together=False)))
    assert smaller["w1"] == (4, 3, 3, 3)
    assert smaller["scale1"] == smaller["m2"] == (4,)
    assert smaller["slope"] == (4, 1, 1)
    assert smaller["w2"] == (5, 256)


def test_concatenated_branches_are_cut_each_on_its_own() -> None:
    model = net(
        """(float[1,3,8,8] x) => (float[1,2,8,8] y) {
            a = Conv(x, w1)
            b = Conv(x, w2)
            r = Relu(b)
            c = Concat<axis=1>(a, x, r)
            y = Conv(c, w3)
        }""",
        w1=(4, 3, 1, 1), w2=(6, 3, 1, 1), w3=(2, 13, 1, 1)
    )  # fmt: skip
    channels = check_equal_to_silenced(model)
    smaller = widths(channels.without(channels.lowest(0.5, together=False)))
    assert (smaller["w1"][0], smaller["w2"][0], smaller["w3"][1]) == (2, 3, 2 + 3 + 3)


def test_squeeze_and_excite_binds_its_gate_to_the_gated_channels() -> None:
    model = net(
        """(float[1,3,8,8] x) => (float[1,2,8,8] y) {
            a = Conv(x, w1)
            p = GlobalAveragePool(a)
            s = Conv(p, w2)
            t = Relu(s)
            e = Conv(t, w3)
            g = HardSigmoid(e)
            m = Mul(a, g)
            y = Conv(m, w4)
        }""",
        w1=(8, 3, 1, 1), w2=(4, 8, 1, 1), w3=(8, 4, 1, 1), w4=(2, 8, 1, 1)
    )  # fmt: skip
    channels = check_equal_to_silenced(model)
    assert channels.kept(channels.layers[0], channels.lowest(0.5, together=False)) == 4
    assert [len(family.channels) for family in channels.families] == [4, 8, 0]


def test_a_reshape_with_fixed_sizes_is_rewritten() -> None:
    model = net(
        """(float[1,3,4,4] x) => (float[1,5] y)
        <int64[4] back = {1, 8, 1, 1}, int64[2] flat = {1, 8}, int64[2] wide = {1, 128}> {
            a = Conv(x, w1)
            f = Reshape(a, wide)
            h = Gemm(f, w2)
            i = Reshape(h, back)
            j = Conv(i, w3)
            k = Reshape(j, flat)
            y = Gemm(k, w4)
        }""",
        w1=(8, 3, 1, 1), w2=(128, 8), w3=(8, 8, 1, 1), w4=(8, 5)
    )  # fmt: skip
    check_equal_to_silenced(model)


def test_transposed_convolutions_transposes_and_reductions_follow() -> None:
    model = net(
        """(float[1,3,4,4] x) => (float[1,5] y) <int64[2] axes = {1, 2}> {
            a = ConvTranspose<strides=[2,2], kernel_shape=[2,2]>(x, w1, b1)
            r = Relu(a)
            t = Transpose<perm=[0,2,3,1]>(r)
            l = MatMul(t, w2)
            b = Add(bias, l)
            m = ReduceMean<keepdims=0>(b, axes)
            y = MatMul(m, w3)
        }""",
        opset=18, w1=(3, 8, 2, 2), b1=(8,), w2=(8, 6), bias=(6,), w3=(6, 5)
    )  # fmt: skip
    channels = check_equal_to_silenced(model)
    smaller = widths(channels.without(channels.lowest(0.5, together=False)))
    assert (smaller["w1"], smaller["w2"], smaller["bias"], smaller["w3"]) == ((3, 4, 2, 2), (4, 3), (3,), (3, 5))


def test_a_constant_that_two_layers_share_is_cut_for_each() -> None:
    model = net(
        """(float[1,8,4,4] x) => (float[1,8,4,4] y) {
            a = Conv(x, w)
            r = Relu(a)
            b = Conv(r, w)
            s = Relu(b)
            y = Conv(s, w)
        }""",
        w=(8, 8, 1, 1)
    )  # fmt: skip
    channels = Channels(model)
    smaller = channels.without(channels.lowest(0.5, together=False))
    onnx.checker.check_model(smaller, full_check=True)
    shapes = sorted(widths(smaller).values())
    assert shapes == [(4, 4, 1, 1), (4, 8, 1, 1), (8, 4, 1, 1)]
    assert next(iter(run_reference(smaller, noise(model)).values())).shape == (4, 1, 8, 4, 4)


def test_weights_that_an_old_file_lists_as_inputs_are_cut_too() -> None:
    model = net(
        "(float[1,3,4,4] x) => (float[1,2,4,4] y) { a = Conv(x, w1) y = Conv(a, w2) }",
        opset=8, ir_version=3, w1=(8, 3, 1, 1), w2=(2, 8, 1, 1)
    )  # fmt: skip
    channels = Channels(model)
    smaller = channels.without(channels.lowest(0.5, together=False))
    onnx.checker.check_model(smaller, full_check=True)
    assert widths(smaller) == {"w1": (4, 3, 1, 1), "w2": (2, 4, 1, 1)}
    assert next(iter(run_reference(smaller, noise(model)).values())).shape == (4, 1, 2, 4, 4)


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        ("b = Softmax<axis=1>(a)", "Softmax"),
        ("b = Add(a, x)", "fixed"),
        ("b = com.acme.Magic(a)", "Magic"),
        ("s = Shape(a) b = Expand(a, s)", "Shape"),
        ("c = ReduceMax<axes=[1], keepdims=1>(a) b = Add(a, c)", "over the channels"),
        ("b = Conv<group=2>(a, wg)", "groups"),
        ("b = InstanceNormalization(a, x0, x0)", "computed"),
        ("b = ConvTranspose(a, w0)", "shape"),
    ],
)
def test_what_cannot_be_followed_keeps_its_channels_and_says_so(between: str, reason: str) -> None:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 13, "com.acme" : 1]>
        g (float[1,8,4,4] x, float[8] x0) => (float[1,2,4,4] y) {{ a = Conv(x, w1) {between} y = Conv(b, w2) }}"""
    )
    for name, shape in {"w1": (8, 8, 1, 1), "wg": (8, 4, 1, 1), "w2": (2, 8, 1, 1), "w0": (8, 0, 1, 1)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(RNG.standard_normal(shape).astype("f4"), name))
    if "acme" in between:
        model.graph.value_info.append(onnx.helper.make_tensor_value_info("b", 1, [1, 8, 4, 4]))
    channels = Channels(model)
    left = channels.why_left(channels.layers[0])
    assert left is not None
    assert reason in left
    assert channels.lowest(0.9, together=False) == frozenset()


def test_a_batch_of_any_size_does_not_stop_the_cut() -> None:
    model = net(
        """(float[N,3,4,4] x) => (float[N,5] y) {
            a = Conv(x, w1)
            r = Relu(a)
            s = Add(r, offset)
            f = Flatten(s)
            y = Gemm(f, w2)
        }""",
        w1=(8, 3, 1, 1), offset=(8, 1, 1), w2=(128, 5)
    )  # fmt: skip
    channels = Channels(model)
    smaller = channels.without(channels.lowest(0.5, together=False))
    assert widths(smaller) == {"w1": (4, 3, 1, 1), "offset": (4, 1, 1), "w2": (64, 5)}
    inputs = ({"x": np.zeros((7, 3, 4, 4), "f4")},)
    samples = Samples(inputs=inputs, labels=None, source="zeros", digest="sha256:0")
    assert run_reference(smaller, samples)["y"].shape == (1, 7, 5)


def test_channels_that_a_subgraph_reads_stay() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1,3,4,4] x, bool c) => (float[1,8,4,4] y) {
            a = Conv(x, w1)
            y = If(c) <then_branch = yes () => (float[1,8,4,4] t) { t = Relu(a) },
                       else_branch = no () => (float[1,8,4,4] e) { e = Neg(a) }>
        }"""
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((8, 3, 1, 1), "f4"), "w1"))
    channels = Channels(model)
    assert "subgraph" in (channels.why_left(channels.layers[0]) or "")


def test_each_layer_keeps_a_channel_whatever_is_asked() -> None:
    model = read_onnx(zoo_model("digits-cnn").model)
    channels = Channels(model)
    for together in (False, True):
        removed = channels.lowest(1.0, together=together)
        assert all(channels.kept(layer, removed) >= 1 for layer in channels.layers)
        assert next(iter(run_reference(channels.without(removed), noise(model)).values())).shape == (4, 1, 10)
