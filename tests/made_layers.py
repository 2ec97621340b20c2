"""Layers made by hand, for tests of what is counted over a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from npuops.models.model import Layer, TensorInfo


def tensor(name: str, *shape: int | None, dtype: str = "float32") -> TensorInfo:
    return TensorInfo(name=name, dtype=dtype, shape=shape)


def layer(op: str, inputs: Sequence[TensorInfo], *outputs: TensorInfo, weights: Sequence[TensorInfo] = ()) -> Layer:
    return Layer(
        name=outputs[0].name,
        op=op,
        inputs=tuple(inputs),
        weights=tuple(weights),
        outputs=outputs,
        attributes={},
        macs=0,
        weight_bytes=0,
        activation_bytes=None if any(one.elements is None for one in outputs) else 1,
    )


X, A, B, C = (tensor(name, 1, 8, 10, 10) for name in "xabc")
FILTERS = (tensor("w", 8, 8, 1, 1),)
BIG = 800
"""Elements of each of them."""


def conv(inputs: Sequence[TensorInfo], output: TensorInfo) -> Layer:
    return replace(layer("Conv", inputs, output, weights=FILTERS), macs=8 * BIG)
