"""The inputs of a proof exercise what they are to prove."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from npuops.errors import NpuopsError
from npuops.rewrite.proof_samples import integer_limits, proof_samples
from npuops.rewrite.rewrite_graph import Graph
from rewrite_cases import Builder, attention


def test_a_mask_hides_something_but_never_everything():
    samples = proof_samples(attention("where-scores"))
    for row in samples.inputs:
        mask = row["attention_mask"]
        assert set(np.unique(mask)) == {0, 1}
        assert mask[..., 0].all()


def test_indices_stay_in_their_table():
    b = Builder()
    ids = b.add("Cast", "ids", to=TensorProto.INT32)
    b.add("Gather", b.weights(30, 4), ids, out="y")
    proto = b.model({"ids": [1, 64]}, {"y": [1, 64, 4]}, dtypes={"ids": TensorProto.INT64})
    assert integer_limits(Graph(proto)) == {"ids": 30}
    drawn = np.concatenate([row["ids"] for row in proof_samples(proto).inputs])
    assert drawn.min() >= 0
    assert 2 < drawn.max() < 30


def test_quantized_inputs_use_all_levels():
    b = Builder()
    b.add("Cast", "x", to=TensorProto.FLOAT, out="y")
    proto = b.model({"x": [1, 4096]}, {"y": [1, 4096]}, dtypes={"x": TensorProto.UINT8})
    first = proof_samples(proto).inputs[0]["x"]
    assert (first.min(), first.max()) == (0, 255)


def test_the_same_seed_gives_the_same_inputs():
    assert proof_samples(attention("scaled")).digest == proof_samples(attention("scaled")).digest
    assert proof_samples(attention("scaled")).digest != proof_samples(attention("scaled"), seed=1).digest


def test_a_dynamic_input_is_a_clear_error():
    b = Builder()
    b.add("Relu", "x", out="y")
    with pytest.raises(NpuopsError, match="x"):
        proof_samples(b.model({"x": ["batch", 3]}, {"y": ["batch", 3]}))
