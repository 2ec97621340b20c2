"""Clip ranges of Softmax inputs, judged by what comes out of the Softmax.

An additive mask of -100 stretches the range of attention scores to 8-bit steps of half a unit, although nothing
below about 20 under the maximum of a row reaches the output. Squared error on the scores would keep the mask;
squared error behind the Softmax drops it (MiniLM: 13 to 40 times less error, in every layer but the first).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from npuops.evaluate.samples import Samples
from npuops.quantize.ranges import Activation, ActivationTap, Range

SPANS = (8.0, 12.0, 16.0, 20.0, 24.0, 32.0, 48.0, 64.0, 96.0)
"""Candidate widths below the maximum; the whole range is always a candidate too."""

SAMPLES_USED = 4
"""A few of samples orders the candidates; each costs one softmax per candidate."""


def softmax_inputs(model: onnx.ModelProto) -> dict[str, int]:
    """Float tensor that feeds a Softmax → the axis of the Softmax."""
    found = {}
    for node in model.graph.node:
        if node.op_type == "Softmax":
            axes = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
            found[node.input[0]] = axes[0] if axes else -1
    return found


def choose_softmax_ranges(
    tap: ActivationTap, axes: Mapping[str, int], samples: Samples, seen: Mapping[str, Activation], *, levels: int
) -> dict[str, Range]:
    """The range of each Softmax input with the least squared error of the attention weights.

    Args:
        tap: of the float graph; it knows the Softmax inputs.
        axes: `softmax_inputs` of the graph.
        samples: calibration inputs; the first few are used.
        seen: of the same graph and samples.
        levels: quantization steps, of the input and of the output.
    """
    errors = {name: dict.fromkeys(_candidates(seen[name]), 0.0) for name in axes if name in seen}
    if not errors:
        return {}
    for sample in samples.inputs[:SAMPLES_USED]:
        for name, array in tap.run(sample, only=errors):
            wanted = softmax(array, axes[name])
            for low in errors[name]:
                got = softmax(fake_quantize(array, (low, seen[name].high), levels), axes[name])
                errors[name][low] += float(np.sum((np.round(got * (levels - 1)) / (levels - 1) - wanted) ** 2))
    return {name: (min(found, key=found.__getitem__), seen[name].high) for name, found in errors.items()}


def _candidates(seen: Activation) -> tuple[float, ...]:
    return tuple(dict.fromkeys((seen.low, *(max(seen.low, seen.high - span) for span in SPANS))))


def softmax(array: NDArray[Any], axis: int) -> NDArray[Any]:
    """exp(x) / Σ exp(x) along `axis`."""
    powers = np.exp(array - array.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def fake_quantize(array: NDArray[Any], clip: Range, levels: int) -> NDArray[np.float32]:
    """Round to `levels` steps over `clip` (widened to hold zero, as ONNX Runtime does) and back."""
    low, high = min(clip[0], 0.0), max(clip[1], 0.0)
    step = np.float32(max(high - low, 1e-4) / (levels - 1))
    zero = np.float32(np.round(-low / step))
    return np.asarray((np.clip(np.round(array / step) + zero, 0, levels - 1) - zero) * step, np.float32)
