from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from npuops.models.onnx_order import in_order, sort_graph


def relu(source: str, result: str) -> onnx.NodeProto:
    return helper.make_node("Relu", [source], [result])


def names(nodes: list[onnx.NodeProto]) -> list[str]:
    return [node.output[0] for node in nodes]


def branch(reads: str, result: str) -> onnx.GraphProto:
    value = helper.make_tensor_value_info(result, TensorProto.FLOAT, [1])
    return helper.make_graph([relu(reads, result)], "branch", [], [value])


def test_a_graph_that_is_in_order_stays_as_it_is() -> None:
    nodes = [relu("x", "b"), relu("x", "a"), helper.make_node("Add", ["a", "b"], ["y"]), relu("x", "z")]
    assert names(in_order(nodes)) == ["b", "a", "y", "z"]


@pytest.mark.parametrize("seed", range(5))
def test_every_node_comes_after_what_it_reads(seed: int) -> None:
    chance = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Sum", [f"t{chance.integers(index)}" for _ in range(3)] if index else ["x"], [f"t{index}"])
        for index in range(60)
    ]
    nodes = [nodes[index] for index in chance.permutation(len(nodes))]
    graph = helper.make_graph(nodes, "g", [], [])
    sort_graph(graph)
    seen = {"x"}
    for node in graph.node:
        assert set(node.input) <= seen
        seen |= set(node.output)
    assert sorted(names(list(graph.node))) == sorted(names(nodes))


def test_what_a_branch_takes_from_outside_is_made_before() -> None:
    made, other = relu("x", "made"), relu("x", "other")
    choice = helper.make_node(
        "If", ["choose"], ["y"], then_branch=branch("made", "t"), else_branch=branch("other", "e")
    )
    found = names(in_order([choice, other, made]))
    assert sorted(found[:2]) == ["made", "other"]
    assert found[2:] == ["y"]


def test_optional_outputs_that_are_left_out_make_nothing() -> None:
    """Every such output is called "", and so is every input that is left out."""
    first = helper.make_node("Dropout", ["x"], ["a", ""])
    second = helper.make_node("Clip", ["b", "", "top"], ["y"])
    assert names(in_order([second, first, relu("a", "b")])) == ["a", "b", "y"]


def test_a_long_chain_needs_no_deep_stack() -> None:
    chain = [relu(f"t{index}", f"t{index + 1}") for index in range(20_000)]
    assert names(in_order(reversed(chain))) == names(chain)


def test_of_a_cycle_every_node_is_there_once() -> None:
    found = names(in_order([relu("b", "a"), relu("a", "b"), relu("b", "c")]))
    assert sorted(found) == ["a", "b", "c"]
