"""MAC counts by formula, and the peak of live activations."""

from __future__ import annotations

import pytest

from npuops.models.macs import Operands, count_macs, peak_activation_bytes
from npuops.models.model import Layer, TensorInfo


def tensor(*shape: int | str, name: str = "t") -> TensorInfo:
    return TensorInfo(name=name, dtype="float32", shape=tuple(shape))


@pytest.mark.parametrize(
    ("op", "inputs", "output", "attributes", "macs"),
    [
        ("Conv", [(1, 3, 8, 8), (16, 3, 3, 3)], (1, 16, 6, 6), {}, 16 * 36 * 27),
        ("Conv", [(1, 16, 8, 8), (16, 1, 3, 3)], (1, 16, 6, 6), {"group": 16}, 16 * 36 * 9),
        ("ConvInteger", [(1, 3, 8, 8), (16, 3, 3, 3)], (1, 16, 6, 6), {}, 16 * 36 * 27),
        ("QLinearConv", [(1, 3, 8, 8), (), (), (16, 3, 3, 3)], (1, 16, 6, 6), {}, 16 * 36 * 27),
        ("ConvTranspose", [(1, 8, 4, 4), (8, 2, 3, 3)], (1, 2, 9, 9), {}, 8 * 16 * 18),
        ("Gemm", [(2, 7), (7, 5)], (2, 5), {}, 70),
        ("Gemm", [(7, 2), (5, 7)], (2, 5), {"transA": 1, "transB": 1}, 70),
        ("MatMul", [(3, 2, 7), (7, 5)], (3, 2, 5), {}, 210),
        ("FusedMatMul", [(7, 3), (7, 5)], (3, 5), {"transA": 1}, 105),
        ("MatMulIntegerToFloat", [(3, 7), (7, 5)], (3, 5), {}, 105),
        ("QLinearMatMul", [(2, 7), (), (), (7, 5)], (2, 5), {}, 70),
        ("LSTM", [(10, 2, 8), (1, 64, 8), (1, 64, 16)], (10, 1, 2, 16), {}, 20 * (512 + 1024)),
        ("GRU", [(10, 1, 8), (2, 48, 8), (2, 48, 16)], (10, 2, 1, 16), {}, 10 * 96 * 24),
        ("Attention", [(1, 4, 6, 8), (1, 4, 9, 8), (1, 4, 9, 8)], (1, 4, 6, 8), {}, 4 * 6 * 9 * 16),
        (
            "Attention",
            [(1, 4, 6, 8), (1, 4, 9, 8), (1, 4, 9, 8), (6, 20), (1, 4, 11, 8), (1, 4, 11, 8)],
            (1, 4, 6, 8),
            {},
            4 * 6 * 20 * 16,
        ),
        (
            "Attention",
            [(1, 6, 32), (1, 9, 32), (1, 9, 32)],
            (1, 6, 32),
            {"q_num_heads": 4, "kv_num_heads": 4},
            6 * 9 * 64,
        ),
        ("Einsum", [(2, 3, 4), (2, 4, 5)], (2, 3, 5), {"equation": "bij, bjk -> bik"}, 120),
        ("Einsum", [(2, 3)], (3, 2), {"equation": "ij->ji"}, 0),
        ("Relu", [(1, 9)], (1, 9), {}, 0),
    ],
)
def test_a_count_follows_the_textbook(op, inputs, output, attributes, macs) -> None:  # type: ignore[no-untyped-def]  # a table
    operands = Operands(
        inputs=tuple(tensor(*shape) for shape in inputs), outputs=(tensor(*output),), attributes=attributes
    )
    assert count_macs(op, operands) == macs


@pytest.mark.parametrize("op", ["Conv", "MatMul", "LSTM", "Einsum", "If", "Loop", "SequenceMap"])
def test_what_is_not_known_is_none_and_never_zero(op: str) -> None:
    operands = Operands(inputs=(tensor("n", 3), None), outputs=(tensor("n", 3),), attributes={"equation": "ab,b->a"})
    assert count_macs(op, operands) is None


def layer(inputs: str, output: str, size: int | None) -> Layer:
    shape = (size,) if size is not None else ("n",)
    made = TensorInfo(name=output, dtype="int8", shape=shape)
    return Layer(
        name=output,
        op="X",
        inputs=tuple(TensorInfo(name=name, dtype="int8", shape=(1,)) for name in inputs),
        weights=(),
        outputs=(made,),
        attributes={},
        macs=0,
        weight_bytes=0,
        activation_bytes=size,
    )


def peak(layers: list[Layer]) -> int | None:
    start = TensorInfo(name="x", dtype="int8", shape=(10,))
    return peak_activation_bytes(layers, [start], [layers[-1].outputs[0].name], lambda tensor: tensor.elements)


def test_a_chain_holds_two_neighbours() -> None:
    assert peak([layer("x", "a", 100), layer("a", "b", 30), layer("b", "c", 1)]) == 130


def test_a_skip_connection_stays_alive() -> None:
    assert peak([layer("x", "a", 100), layer("a", "b", 50), layer("b", "c", 50), layer("ac", "d", 1)]) == 200


def test_an_unknown_size_makes_the_peak_unknown() -> None:
    assert peak([layer("x", "a", None), layer("a", "b", 3)]) is None
