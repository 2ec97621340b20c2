"""The scorer as an ONNX file that every NPU takes whole.

Layout: channels first; along the width lie the slots for tasks, along the height the frames (history) or the
candidates (levels). So all layers are convolutions of kernel 1 (the TCN: 2 frames by stride 2), poolings along the
width, and additions that spread over one axis: operators that the vendors' rules place on their NPUs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from npuops.errors import OptionError
from npuops.hostsched.scorer_network import SPAN, NetworkShape, Weights

OPSET: Final = 17
IR_VERSION: Final = 8
TASKS, HISTORY, HOST, LEVELS = "tasks", "history", "host", "levels"
FACES_OUT, WAITS_OUT, SWITCHES_OUT = "faces", "waits", "switches"
MOST_CANDIDATES: Final = 4096
_POOL: Final = 4
"""Widest pooling; Rockchip's NPUs take kernels of 7 at most (`vnpu/rules_rockchip.py`)."""


def onnx_bytes(weights: Weights, shape: NetworkShape, candidates: int) -> bytes:
    """The network for a fixed number of candidates; the same bytes for the same arguments.

    Inputs, float32: `tasks` [1, features, 1, slots], `history` [1, columns, frames, slots], `host` [1, columns, 1, 1],
    `levels` [1, levels, candidates, slots] (one-hot; zeros where no task is).
    Outputs, float32: `faces` [1, 2, candidates, slots], `waits` [1, 1, 1, slots], `switches` [1, 1, candidates, 1].

    Raises:
        DataError: weights of another network.
        OptionError: no candidate, or more than 4096.
    """
    if not 1 <= candidates <= MOST_CANDIDATES:
        raise OptionError(f"{candidates} candidates in a graph", advice=f"1 to {MOST_CANDIDATES}")
    shape.check(weights)
    graph = _Graph(weights)
    past = HISTORY
    for step in range(shape.steps):
        past = graph.relu(graph.conv(f"tcn{step}", past, span=SPAN))
    own = graph.conv("task", TASKS, rows=slice(0, shape.features))
    embedded = graph.relu(graph.add(own, graph.conv("task", past, rows=slice(shape.features, None), bias=False)))
    embedded = graph.relu(graph.conv("task2", embedded))
    context = graph.pooled("host", embedded, shape.slots, shape.embed)
    said = graph.conv("host", HOST, rows=slice(2 * shape.embed, None), bias=False)
    context = graph.relu(graph.add(context, said))
    embedded = graph.relu(graph.add(graph.conv("task3", embedded), context))
    graph.conv("waits", embedded, out=WAITS_OUT)
    alone = graph.relu(graph.add(graph.conv("level", LEVELS, bias=False), graph.conv("first", embedded)))
    alone = graph.relu(graph.conv("second", alone))
    crowd = graph.relu(graph.pooled("crowd", alone, shape.slots, shape.width))
    hidden = graph.relu(graph.add(graph.conv("own", alone), crowd))
    hidden = graph.relu(graph.conv("third", hidden))
    graph.conv("faces", hidden, out=FACES_OUT)
    graph.conv("switches", crowd, out=SWITCHES_OUT)
    found: bytes = graph.model(_signature(shape, candidates)).SerializeToString(deterministic=True)
    return found


def write_onnx(path: Path, weights: Weights, shape: NetworkShape, candidates: int) -> Path:
    """`onnx_bytes` in a file.

    Raises:
        DataError, OptionError: as there.
    """
    path.write_bytes(onnx_bytes(weights, shape, candidates))
    return path


_Signature = tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]


def _signature(shape: NetworkShape, candidates: int) -> _Signature:
    inputs: dict[str, tuple[int, ...]] = {
        TASKS: (1, shape.features, 1, shape.slots),
        HISTORY: (1, shape.history, shape.frames, shape.slots),
        HOST: (1, shape.host, 1, 1),
        LEVELS: (1, shape.levels, candidates, shape.slots),
    }
    outputs: dict[str, tuple[int, ...]] = {
        FACES_OUT: (1, 2, candidates, shape.slots),
        WAITS_OUT: (1, 1, 1, shape.slots),
        SWITCHES_OUT: (1, 1, candidates, 1),
    }
    return inputs, outputs


@dataclass(slots=True)
class _Graph:
    """Nodes in the order of their making, each named by its weights."""

    weights: Weights
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def conv(
        self, name: str, given: str, *, rows: slice | None = None, span: int = 1, bias: bool = True, out: str = ""
    ) -> str:
        """A dense layer over the channels; with `rows`, that part of its matrix which takes this input."""
        matrix = np.asarray(self.weights[name], np.float32)[rows or slice(None)]
        kernel = matrix.reshape(span, -1, matrix.shape[1]).transpose(2, 1, 0)[..., None]
        label = f"{name}_{given}" if rows else name
        self.constants[f"{label}.w"] = np.ascontiguousarray(kernel)
        inputs = [given, f"{label}.w"]
        if bias:
            self.constants[f"{label}.b"] = np.asarray(self.weights[f"{name}.b"], np.float32)
            inputs.append(f"{label}.b")
        return self._node("Conv", inputs, out or f"{label}_out", kernel_shape=[span, 1], strides=[span, 1])

    def pooled(self, name: str, given: str, slots: int, channels: int) -> str:
        """The first layer over mean and maximum of the slots."""
        mean = most = given
        while slots > 1:
            part = min(slots, _POOL)
            shape = {"kernel_shape": [1, part], "strides": [1, part]}
            slots //= part
            mean = self._node("AveragePool", [mean], f"{name}_mean{slots}", **shape)
            most = self._node("MaxPool", [most], f"{name}_most{slots}", **shape)
        return self.add(
            self.conv(name, mean, rows=slice(0, channels)),
            self.conv(name, most, rows=slice(channels, 2 * channels), bias=False),
        )

    def add(self, one: str, other: str) -> str:
        return self._node("Add", [one, other], f"{one}_plus")

    def relu(self, given: str) -> str:
        return self._node("Relu", [given], f"{given}_relu")

    def _node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{op.lower()}_{output}", **attributes))
        return output

    def model(self, signature: _Signature) -> onnx.ModelProto:
        inputs, outputs = (
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(size)) for name, size in side.items()]
            for side in signature
        )
        constants = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "hostsched-scorer", inputs, outputs, constants)
        made = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="npuops", ir_version=IR_VERSION
        )
        onnx.checker.check_model(made, full_check=True)
        return made
