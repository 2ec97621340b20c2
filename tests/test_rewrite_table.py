"""Every rewrite: its pattern goes, the promise to the caller stays."""

from __future__ import annotations

import onnx
import pytest

from npuops.evaluate.equality import all_equal, compare
from npuops.evaluate.reference import run_reference
from npuops.rewrite.proof_samples import proof_samples
from npuops.rewrite.rewrite_graph import Graph
from npuops.rewrite.rewrite_table import REWRITES, rewrite_model
from rewrite_cases import CASES, Builder

EVERY = [
    pytest.param(name, index, id=f"{name}-{index}") for name, graphs in CASES.items() for index in range(len(graphs))
]


def test_every_rewrite_has_a_case():
    assert set(CASES) == set(REWRITES)


@pytest.mark.parametrize(("name", "index"), EVERY)
def test_rewrite_removes_its_pattern_and_keeps_results_inputs_and_outputs(name: str, index: int):
    before = CASES[name][index]
    rewrite = REWRITES[name]
    assert list(rewrite.find(Graph(before)))
    after, sites = rewrite_model(before, rewrite)
    assert sites
    onnx.checker.check_model(after, full_check=True)
    assert not list(rewrite.find(Graph(after)))
    assert [value.name for value in after.graph.input] == [value.name for value in before.graph.input]
    assert [value.name for value in after.graph.output] == [value.name for value in before.graph.output]
    samples = proof_samples(before)
    differences = compare(run_reference(after, samples), run_reference(before, samples), rewrite.tolerance)
    assert all_equal(differences), differences


@pytest.mark.parametrize(("name", "index"), EVERY)
def test_rewrite_leaves_the_given_model_alone(name: str, index: int):
    before = CASES[name][index]
    content = before.SerializeToString(deterministic=True)
    rewrite_model(before, REWRITES[name])
    assert before.SerializeToString(deterministic=True) == content


@pytest.mark.parametrize("name", list(REWRITES))
def test_rewrite_of_a_model_without_the_pattern_changes_nothing(name: str):
    b = Builder()
    b.add("Relu", b.add("MatMul", "x", b.weights(16, 4)), out="y")
    plain = b.model({"x": [2, 16]}, {"y": [2, 4]})
    after, sites = rewrite_model(plain, REWRITES[name])
    assert after is plain
    assert sites == ()


@pytest.mark.parametrize(
    ("name", "ops"),
    [
        ("fuse-layernorm", {"LayerNormalization", "MatMul"}),
        ("fuse-gelu", {"Gelu", "MatMul"}),
        ("fuse-hardswish", {"HardSwish", "MatMul"}),
        ("fold-batchnorm", {"Conv", "Relu"}),
        ("fold-constants", {"MatMul"}),
        ("drop-leftovers", {"MatMul", "Relu"}),
        ("layernorm-gamma-uint8", {"QuantizeLinear", "DequantizeLinear", "LayerNormalization"}),
    ],
)
def test_rewrite_leaves_nothing_of_the_old_spelling(name: str, ops: set[str]):
    after, _ = rewrite_model(CASES[name][0], REWRITES[name])
    assert {node.op_type for node in after.graph.node} == ops
