"""Editing a graph never loses what somebody else still reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hostile_models import external
from npuops.rewrite.rewrite_graph import MAX_ROUNDS, Graph, apply_sites, replacing
from npuops.rewrite.rewrite_table import REWRITES, rewrite_model
from rewrite_cases import CASES, Builder, attention


def ops(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def test_unnamed_nodes_are_named_as_the_placement_names_them():
    b = Builder()
    b.add("Relu", "x", out="y")
    b.nodes[0].name = ""
    assert [node.name for node in Graph(b.model({"x": [2]}, {"y": [2]})).nodes] == ["Relu_0"]


def test_a_tensor_with_a_second_reader_survives_a_rewrite():
    b = Builder()
    shared = b.add("Identity", "x")
    b.add("Relu", shared, out="y")
    b.add("Neg", shared, out="z")
    after, _ = rewrite_model(b.model({"x": [2]}, {"y": [2], "z": [2]}), REWRITES["drop-leftovers"])
    assert ops(after) == ["Relu", "Neg"]
    assert {node.input[0] for node in after.graph.node} == {"x"}


def test_an_identity_between_input_and_output_stays_because_both_names_are_promised():
    b = Builder()
    b.add("Identity", "x", out="y")
    plain = b.model({"x": [2]}, {"y": [2]})
    assert rewrite_model(plain, REWRITES["drop-leftovers"])[0] is plain


def test_a_tensor_that_a_subgraph_reads_survives():
    kind = helper.make_tensor_value_info("r", TensorProto.FLOAT, [2])
    branches = {
        f"{word}_branch": helper.make_graph([helper.make_node(op, ["inner"], ["r"])], word, [], [kind])
        for word, op in (("then", "Relu"), ("else", "Neg"))
    }
    b = Builder()
    b.add("Identity", "x", out="inner")
    b.add("If", b.constant(np.array(True)), out="y", **branches)
    proto = b.model({"x": [2]}, {"y": [2]})
    after, sites = rewrite_model(proto, REWRITES["drop-leftovers"])
    assert sites == ()
    assert ops(after) == ["Identity", "If"]


def test_nodes_stay_in_topological_order():
    after, _ = rewrite_model(attention("where-keep"), REWRITES["additive-mask"])
    known = {value.name for value in after.graph.input} | {tensor.name for tensor in after.graph.initializer}
    for node in after.graph.node:
        assert set(node.input) <= known
        known |= set(node.output)


def test_a_rewrite_that_never_ends_is_stopped():
    b = Builder()
    b.add("Relu", "x", out="y")

    def again(graph: Graph):
        for node in graph.of("Relu"):
            yield replacing(graph, node, lambda node=node: [graph.node("Relu", node.input, node.output)])

    _, sites = apply_sites(b.model({"x": [2]}, {"y": [2]}), again)
    assert len(sites) == MAX_ROUNDS


def test_old_models_that_list_their_weights_among_the_inputs_get_new_weights():
    b = Builder()
    conv = b.add("Conv", "x", b.weights(4, 3, 1, 1))
    norm = [b.constant(np.full(4, value, dtype=np.float32)) for value in (2.0, 1.0, 0.5, 4.0)]
    b.add("BatchNormalization", conv, *norm, out="y")
    proto = b.model({"x": [1, 3, 2, 2]}, {"y": [1, 4, 2, 2]}, opset=9)
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.checker.check_model(proto)
    after, _ = rewrite_model(proto, REWRITES["fold-batchnorm"])
    assert ops(after) == ["Conv"]
    assert [value.name for value in after.graph.input] == ["x"]


def test_a_hostile_constant_is_not_computed():
    b = Builder()
    shape = b.constant(np.array([2**31, 2**31], dtype=np.int64))
    b.add("MatMul", "x", b.add("ConstantOfShape", shape), out="y")
    proto = b.model({"x": [1, 2**31]}, {"y": [1, 2**31]})
    assert rewrite_model(proto, REWRITES["fold-constants"])[1] == ()


def test_many_large_constants_together_stop_at_the_models_limit():
    b = Builder()
    side = 5700  # 260 MB in the estimate of eight bytes an element, just below the limit of one constant
    made = [b.add("ConstantOfShape", b.constant(np.array([side, side - i], dtype=np.int64))) for i in range(12)]
    for index, name in enumerate(made):
        b.add("MatMul", "x", name, out=f"y{index}")
    outputs = {f"y{index}": [1, side - index] for index in range(12)}
    sites = list(REWRITES["fold-constants"].find(Graph(b.model({"x": [1, side]}, outputs))))
    assert 0 < len(sites) < 12


def test_a_scalar_stays_a_scalar():
    b = Builder()
    size = b.add("Gather", b.add("Shape", "x"), b.constant(np.array(0)))
    target = b.add("Concat", b.add("Unsqueeze", size, b.constant(np.array([0]))), b.constant(np.array([-1])), axis=0)
    b.add("Reshape", "x", target, out="y")
    after, _ = rewrite_model(b.model({"x": [2, 3, 4]}, {"y": [2, 12]}), REWRITES["fold-constants"])
    assert ops(after) == ["Reshape"]
    assert [list(tensor.dims) for tensor in after.graph.initializer] == [[2]]
    clip, _ = rewrite_model(CASES["fuse-clip"][0], REWRITES["fuse-clip"])
    bounds = [tensor for tensor in clip.graph.initializer if tensor.name in clip.graph.node[-1].input]
    assert [list(tensor.dims) for tensor in bounds] == [[], []]


def test_a_size_of_minus_one_is_an_unknown_size():
    b = Builder()
    b.add("Shape", "x", out="y")
    graph = Graph(b.model({"x": [-1, 3]}, {"y": [2]}, dtypes={"y": TensorProto.INT64}))
    assert graph.shape("x") == (None, 3)
    assert list(REWRITES["fold-constants"].find(graph)) == []


def test_external_data_that_was_not_loaded_is_never_looked_for_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    graph = Graph(external("weights.data"))
    assert graph.constant("w") is None
    (tmp_path / "weights.data").write_bytes(bytes(16))
    assert graph.constant("w") is None
