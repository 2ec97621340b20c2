"""Fixing and inferring shapes of ONNX graphs."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from npuops.errors import MalformedModelError, OptionError
from npuops.models.shapes import fix_shapes, infer_shapes, skeleton_of

F = TensorProto.FLOAT


def two_inputs() -> onnx.ModelProto:
    """Both inputs share the symbol `n`; an exporter's stale note contradicts nothing yet."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["s"]), helper.make_node("Relu", ["s"], ["y"])],
        "g",
        [helper.make_tensor_value_info("a", F, ["n", 4]), helper.make_tensor_value_info("b", F, ["n", "m"])],
        [helper.make_tensor_value_info("y", F, ["n", 4])],
        value_info=[helper.make_tensor_value_info("s", F, [9, 4])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def sizes(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_a_symbol_is_fixed_everywhere_and_stale_notes_go() -> None:
    original = two_inputs()
    fixed = fix_shapes(original, {"a": (2, 4), "b": (2, 4)})
    assert [sizes(value) for value in (*fixed.graph.input, *fixed.graph.output, *fixed.graph.value_info)] == [
        [2, 4]
    ] * 4
    assert sizes(original.graph.input[0]) == ["n", 4]


def test_what_is_not_named_stays_dynamic() -> None:
    fixed = fix_shapes(two_inputs(), {"a": (2, 4)})
    assert sizes(fixed.graph.input[1]) == [2, "m"]


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"aa": (1, 4)}, "no input 'aa'"),
        ({"a": (1, 4, 1)}, "has 2 dimensions"),
        ({"a": (1, 5)}, "fixes a dimension to 4"),
        ({"a": (0, 4)}, "positive"),
        ({"a": (2, 4), "b": (3, 4)}, "fixes a dimension to 2"),
        ({"a": (2, 4), "b": (2, 3)}, "cannot compute"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_in_words(shapes: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        fix_shapes(two_inputs(), shapes)


def test_a_sequence_has_no_shape_to_fix() -> None:
    model = two_inputs()
    model.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("a", F, [1, 2]))
    with pytest.raises(OptionError, match="no tensor"):
        fix_shapes(model, {"a": (1, 2)})


def test_the_nearest_input_is_proposed() -> None:
    graph = two_inputs()
    graph.graph.input[0].name = graph.graph.node[0].input[0] = "image_input"
    with pytest.raises(OptionError) as caught:
        fix_shapes(graph, {"image_imput": (1, 4)})
    assert "image_input" in caught.value.advice


def test_a_contradiction_inside_is_malformed() -> None:
    model = two_inputs()
    for value, wrong in zip(model.graph.input, ([2, 4], [3, 4]), strict=True):
        value.CopyFrom(helper.make_tensor_value_info(value.name, F, wrong))
    with pytest.raises(MalformedModelError, match="contradict"):
        infer_shapes(model)


def test_a_skeleton_leaves_the_large_weights_out() -> None:
    model = two_inputs()
    model.graph.initializer.append(helper.make_tensor("big", F, [5000], b"\0" * 20000, raw=True))
    model.graph.initializer.append(helper.make_tensor("small", F, [5], b"\0" * 20, raw=True))
    skeleton = skeleton_of(model)
    assert [tensor.name for tensor in skeleton.graph.initializer] == ["small"]
    assert [value.name for value in skeleton.graph.input] == ["a", "b", "big"]
    assert len(model.graph.initializer) == 2
