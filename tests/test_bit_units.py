from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from npuops.evaluate.reference import run_reference
from npuops.models.model import TensorInfo
from npuops.quantize.bit_units import tensors_at_16
from npuops.quantize.quantize import Calibrated, QuantizeOptions, build_qdq, calibrate
from npuops.quantize.width_switch import WidthSwitch
from small_graphs import noise, weight, written

SQUARE = (TensorInfo(name="x", dtype="float32", shape=(8, 8)),)
OPTIONS = QuantizeOptions(layernorm_gamma_uint8=True)
KINDS = {onnx.TensorProto.UINT8: 8, onnx.TensorProto.UINT16: 16}

GRAPHS = {
    "an input that is moved and computed with": """(float[8,8] x) => (float[8,8] y)
        { t = Transpose (x)  a = MatMul (t, w)  b = MatMul (x, v)  y = Add (a, b) }""",
    "what moves data by index": """(float[8,8] x) => (float[2,8] y)
        { a = MatMul (x, w)  g = Gather (a, i)  y = MatMul (g, v) }""",
    "the largest values": """(float[8,8] x) => (float[8,2] y)
        { a = MatMul (x, w)  t, at = TopK (a, k)  y = Tanh (t) }""",
    "padding": """(float[8,8] x) => (float[10,8] y)
        { a = MatMul (x, w)  p = Pad <mode = "reflect"> (a, around)  b = MatMul (p, v)  y = Tanh (b) }""",
    "readers without a width": """(float[8,8] x) => (int64[8,1] best, float[8,8] y)
        { a = MatMul (x, w)  best = ArgMax <axis = 1> (a)  y = Tanh (a) }""",
    "a constant that is a weight and an operand": """(float[8,8] x) => (float[8,8] y)
        { a = Gemm (x, w, c)  t = Tanh (a)  s = Add (t, c)  y = MatMul (s, w) }""",
    "a weight along two axes": """(float[8,8] x) => (float[8,8] y)
        { a = MatMul (x, w)  t = Tanh (a)  y = Gemm <transB = 1> (t, w, c) }""",
    "a batch norm that no layer absorbs": """(float[8,8] x) => (float[8,8] y)
        { a = BatchNormalization (x, ones, c, d, ones)  y = Tanh (a) }""",
    "a computed gamma": """(float[8,8] x) => (float[8,8] y)
        { t = Tanh (x)  g = Gather (t, zero)  y = LayerNormalization (x, g) }""",
    "an inner tensor that is an output too": """(float[8,8] x) => (float[8,8] a, float[8,8] y)
        { a = MatMul (x, w)  t = Tanh (a)  y = Mul (t, a) }""",
}


CONSTANTS = {
    "w": weight(8, 8),
    "v": weight(8, 8, seed=1),
    "c": weight(8, seed=2),
    "d": weight(8, seed=3),
    "i": np.array([1, 5]),
    "k": np.array([2]),
    "around": np.array([1, 0, 1, 0]),
    "ones": np.ones(8, np.float32),
    "zero": np.array(0),
}


def _calibrated(folder: Path, text: str) -> Calibrated:
    return calibrate(written(folder / "f.onnx", text, **CONSTANTS), noise(SQUARE, 8, 0), OPTIONS)


def _widths(model: onnx.ModelProto, calibrated: Calibrated) -> tuple[dict[str, int], dict[str, set[int]]]:
    """Bits of every stored activation, and of what every node reads."""
    kinds = {tensor.name: KINDS.get(tensor.data_type) for tensor in model.graph.initializer}
    stored = {}
    read: dict[str, set[int]] = {}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and "_convert" not in node.output[0]:
            tensor = node.input[0].removesuffix("_QuantizeLinear_Input")
            stored[tensor] = kinds[node.input[2]] or 0
        elif node.op_type != "DequantizeLinear":
            sources = [makers[name] for name in node.input if name in makers]
            found = {kinds[source.input[2]] for source in sources if source.op_type == "DequantizeLinear"}
            read[node.name] = {kind for kind in found if kind}
    return {name: bits for name, bits in stored.items() if name in calibrated.plan.makers}, read


@pytest.mark.parametrize("text", GRAPHS.values(), ids=GRAPHS)
def test_every_tensor_has_the_width_of_its_maker_and_every_node_reads_one_width(tmp_path: Path, text: str) -> None:
    calibrated = _calibrated(tmp_path, text)
    plan = calibrated.plan
    switch = WidthSwitch(calibrated)
    units = sorted(plan.widest)
    for choice in range(2 ** len(units)):
        wide = frozenset(unit for place, unit in enumerate(units) if choice >> place & 1)
        at_16 = set(tensors_at_16(plan, wide))
        for model in (switch.graph(wide), build_qdq(calibrated, wide)):
            run_reference(model, noise(SQUARE, 1, 1))
            onnx.checker.check_model(model)
            stored, read = _widths(model, calibrated)
            assert {name for name, bits in stored.items() if bits == 16} == at_16 & set(stored), sorted(wide)
            for unit in plan.units:
                for node in unit.nodes:
                    assert read.get(node, set()) <= {16 if unit.name in wide else 8}, (node, sorted(wide))


def test_what_widens_an_embedding_starts_from_its_16_bit_range(tmp_path: Path) -> None:
    text = """(int64[4] i, float[8,8] x) => (float[4,8] y) { e = Gather (w, i)  s = MatMul (e, x)  y = Tanh (s) }"""
    path = written(tmp_path / "f.onnx", text, w=weight(6, 8))
    rows = noise(SQUARE, 8, 0)
    for index, row in enumerate(rows.inputs):
        row["i"] = np.array([index % 6, 1, 2, 3])
    calibrated = calibrate(path, rows, QuantizeOptions())
    assert {unit.name: unit.can_widen for unit in calibrated.plan.units}["Gather:e"] is False
    _, read = _widths(WidthSwitch(calibrated).graph(calibrated.plan.widest), calibrated)
    assert read["MatMul:s"] == {16}


def test_a_constant_is_copied_only_where_its_format_differs(tmp_path: Path) -> None:
    text = """(float[8,8] x) => (float[8,8] y)
        { a = MatMul (x, w)  b = MatMul (a, w)  t = Tanh (b)  s = Add (t, w)  y = Mul (s, w) }"""
    prepared = _calibrated(tmp_path, text)
    readers = Counter(name for node in prepared.model.graph.node for name in node.input)
    copies = [tensor.name for tensor in prepared.model.graph.initializer if tensor.name.startswith("w")]
    assert sorted(readers[name] for name in copies) == [1, 1, 2]
