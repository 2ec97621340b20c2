"""What an NPU wants from quantization-aware training, as a torchao PT2E quantizer.

Activations unsigned 8 bit, one scale a tensor; weights signed 8 bit, one scale an output channel.
Every tensor between two operators is quantized once, a ReLU shares its producer's numbers (NPUs fuse the
two), and operators that only move or choose values keep the scale of their input.
"""

from __future__ import annotations

from typing import Final

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.fake_quantize import FusedMovingAvgObsFakeQuantize
from torchao.quantization.pt2e.observer import MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

aten = torch.ops.aten
WEIGHTED: Final = {aten.conv2d.default, aten.linear.default}
MOVING: Final = {aten.max_pool2d.default, aten.flatten.using_ints, aten.view.default, aten.reshape.default}
COMPUTING: Final = {aten.add.Tensor, aten.relu.default, aten.adaptive_avg_pool2d.default}

ACTIVATION: Final = QuantizationSpec(
    dtype=torch.uint8,
    quant_min=0,
    quant_max=255,
    qscheme=torch.per_tensor_affine,
    observer_or_fake_quant_ctr=FusedMovingAvgObsFakeQuantize.with_args(observer=MovingAverageMinMaxObserver),
)
WEIGHT: Final = QuantizationSpec(
    dtype=torch.int8,
    quant_min=-127,
    quant_max=127,
    qscheme=torch.per_channel_symmetric,
    ch_axis=0,
    observer_or_fake_quant_ctr=FusedMovingAvgObsFakeQuantize.with_args(observer=MovingAveragePerChannelMinMaxObserver),
)


class NpuQuantizer(Quantizer):
    """Annotates convolutions, linear layers, adds, ReLUs and poolings; anything else stays in float."""

    def annotate(self, model: GraphModule) -> GraphModule:
        for node in model.graph.nodes:
            if node.target in WEIGHTED | MOVING | COMPUTING:
                node.meta[Q_ANNOTATION_KEY] = _annotation(node)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to add: an operator without an annotation is an operator in float."""


def _annotation(node: Node) -> QuantizationAnnotation:
    source = node.args[0]
    if node.target in MOVING:
        shared = SharedQuantizationSpec((source, node))
        return QuantizationAnnotation(input_qspec_map={source: ACTIVATION}, output_qspec=shared, _annotated=True)
    inputs = {source: ACTIVATION}
    if node.target in WEIGHTED:
        inputs[node.args[1]] = WEIGHT
    elif node.target is aten.add.Tensor:
        inputs[node.args[1]] = ACTIVATION
    elif node.target is aten.relu.default and _feeds_only(source, node):
        inputs = {}  # the sum in front of this ReLU stays in the NPU's accumulator: no rounding in between
    output = None if _ends_in_relu(node) else ACTIVATION
    return QuantizationAnnotation(input_qspec_map=inputs, output_qspec=output, _annotated=True)


def _ends_in_relu(node: Node) -> bool:
    users = list(node.users)
    return len(users) == 1 and users[0].target is aten.relu.default


def _feeds_only(source: Node, user: Node) -> bool:
    return list(source.users) == [user] and source.target in WEIGHTED | {aten.add.Tensor}
