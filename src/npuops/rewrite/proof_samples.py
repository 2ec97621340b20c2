"""Random inputs for a proof of equality, in the ranges that a graph admits.

Random floats exercise a network well enough to tell two graphs apart. Integers need care: an index must lie in
its table, and a mask must hide something but never everything, or masked attention would not be exercised.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from npuops.evaluate.sample_sources import fitted_samples, random_samples
from npuops.evaluate.samples import Samples
from npuops.models.onnx_layers import graph_inputs
from npuops.rewrite.rewrite_graph import Graph, attribute

COUNT: Final = 3
SEED: Final = 20_261_121

CARRIERS: Final = ("Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Expand")
INDEXED: Final = ("Gather", "GatherElements", "GatherND")


def proof_samples(proto: onnx.ModelProto, *, count: int = COUNT, seed: int = SEED) -> Samples:
    """`count` random inputs for the model: normal floats, bytes of the full range, indices and masks in range.

    Raises:
        DataError: an input has no fixed shape.
    """
    inputs = graph_inputs(proto)
    samples = random_samples(inputs, count, seed)
    limits = integer_limits(Graph(proto))
    generator = np.random.default_rng(seed)
    rows = [
        {name: _redrawn(generator, array, limits.get(name)) for name, array in row.items()} for row in samples.inputs
    ]
    return fitted_samples(rows, inputs, source=f"seeded noise ({seed}), indices and masks in range")


def integer_limits(graph: Graph) -> dict[str, int]:
    """Input of int32 or int64 → values below which it makes sense: the table's size, or 2 for a mask or flag."""
    wide = {onnx.TensorProto.INT32, onnx.TensorProto.INT64}
    return {name: _limit(graph, name) for name in sorted(graph.inputs) if graph.dtype(name) in wide}


def _limit(graph: Graph, tensor: str) -> int:
    sizes: list[int] = []
    queue = [tensor]
    for name in queue:
        for reader in graph.readers(name, *INDEXED):
            shape = graph.shape(reader.input[0])
            axis = attribute(reader, "axis", 0)
            if list(reader.input[1:2]) == [name] and shape and shape[axis] is not None:
                sizes.append(int(shape[axis] or 1))
        queue += [reader.output[0] for reader in graph.readers(name, *CARRIERS) if reader.output[0] not in queue]
    return min(sizes, default=2)


def _redrawn(generator: np.random.Generator, array: NDArray[Any], limit: int | None) -> NDArray[Any]:
    if limit is None:  # floats, and quantized inputs, of which every level is drawn already
        return array
    drawn = np.asarray(generator.integers(0, limit, size=array.shape), dtype=array.dtype)
    if limit == 2 and drawn.ndim:
        drawn[..., 0] = 1  # one position of each row stays visible
    return drawn
