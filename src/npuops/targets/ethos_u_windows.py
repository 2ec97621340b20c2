"""Rules of an Ethos-U about sliding windows: convolutions and pools, padded as the TFLite writer pads them.

Source: as in `ethos_u_rules`.
"""

from __future__ import annotations

import math
from typing import Final

from npuops.models.model import Layer
from npuops.targets.rules import Rule, ints
from npuops.targets.tflite_conv import Window, window
from npuops.targets.tflite_writer import SAME, VALID

MAX_KERNEL_ELEMENTS: Final = 65536
"""Vela limits the sum of |weights| of one output channel to 8323072 = 127 * 65536: so many int8 always obey."""
MAX_KERNEL_HEIGHT: Final = 256


def sizes_of(layer: Layer) -> tuple[int, ...]:
    """The first input's shape; empty where it is unknown (the rule about static shapes says so already)."""
    shape = layer.inputs[0].shape if layer.inputs else None
    return tuple(dim for dim in shape if isinstance(dim, int)) if shape is not None else ()


def made_by(layer: Layer) -> tuple[int, ...]:
    """The first output's shape; empty where it is unknown."""
    shape = layer.outputs[0].shape if layer.outputs else None
    return tuple(dim for dim in shape if isinstance(dim, int)) if shape is not None else ()


def _kernel(layer: Layer) -> tuple[int, ...]:
    shape = layer.weights[0].shape if layer.weights else None
    given = tuple(dim for dim in shape[2:] if isinstance(dim, int)) if shape is not None else ()
    return ints(layer, "kernel_shape", given or (1,))


def _window(layer: Layer) -> Window | None:
    """As the writer sees it; None where shapes are unknown (a rule of its own)."""
    before, after, kernel = sizes_of(layer)[2:], made_by(layer)[2:], _kernel(layer)
    known = len(before) == len(after) == len(kernel) in {1, 2}
    return window(before, after, kernel, layer.attributes) if known else None


def _padded(layer: Layer) -> bool:
    view = _window(layer)
    return view is not None and view.mode != VALID


def _counted(layer: Layer) -> bool:
    return bool(ints(layer, "count_include_pad", (0,))[0])


def spatial() -> Rule:
    """Rank 3 or 4."""

    def broken(layer: Layer) -> str:
        rank = len(sizes_of(layer))
        return "" if rank in {0, 3, 4} else f"rank {rank}"

    return Rule("data must be a sequence or an image (rank 3 or 4)", broken)


def image() -> Rule:
    """Rank 4."""

    def broken(layer: Layer) -> str:
        rank = len(sizes_of(layer))
        return "" if rank in {0, 4} else f"rank {rank}"

    return Rule("data must be an image (rank 4)", broken)


def kernel_elements() -> Rule:
    """Weights of one output channel."""

    def broken(layer: Layer) -> str:
        shape = list((layer.weights[0].shape if layer.weights else None) or (1,))
        del shape[1 if layer.op == "ConvTranspose" and len(shape) > 1 else 0]  # the output channels
        count = math.prod(dim for dim in shape if isinstance(dim, int))
        return f"{count} elements" if count > MAX_KERNEL_ELEMENTS else ""

    return Rule(f"a kernel must have at most {MAX_KERNEL_ELEMENTS} elements (limit of the sum of |weights|)", broken)


def conv_stride() -> Rule:
    """U55 and U65. Vela 5.2 melts a PAD before the convolution into it, so explicit padding counts too (and fails)."""

    def broken(layer: Layer) -> str:
        stride, group = max(ints(layer, "strides", (1,))), ints(layer, "group", (1,))[0]
        depthwise = group > 1 and len(sizes_of(layer)) > 1 and sizes_of(layer)[1] == group
        if depthwise and stride > 3:
            return f"depthwise stride {stride}"
        dilated = max(ints(layer, "dilations", (1,))) > 1
        return f"stride {stride} with dilation or padding" if stride > 3 and (dilated or _padded(layer)) else ""

    return Rule("strides must be 1 to 3, or longer without dilation and padding and not depthwise", broken)


def transposed_size() -> Rule:
    """The writer crops, and cannot add."""

    def broken(layer: Layer) -> str:
        if "output_shape" in layer.attributes:
            return "output_shape"
        before, after, kernel = sizes_of(layer)[2:], made_by(layer)[2:], _kernel(layer)
        strides, pads = ints(layer, "strides", (1, 1)), ints(layer, "pads", (0, 0, 0, 0))
        bad = any(
            begin + made > (size - 1) * stride + width or width < stride
            for size, made, width, stride, begin in zip(before, after, kernel, strides, pads, strict=False)
        )
        return f"kernel {list(kernel)}, strides {list(strides)}, {before} to {after}" if bad else ""

    return Rule(
        "the size must follow from pads and lie within the full transposed convolution, kernels be as long as strides",
        broken,
    )


def transposed_stride() -> Rule:
    """U55 and U65."""

    def broken(layer: Layer) -> str:
        strides = ints(layer, "strides", (1, 1))
        flat = len(sizes_of(layer)) == 4 and sizes_of(layer)[2] == 1 and _kernel(layer)[0] == 1
        thin = len(sizes_of(layer)) == 4 and sizes_of(layer)[3] == 1 and _kernel(layer)[-1] == 1
        good = strides in {(1, 1), (2, 2)} or (strides == (1, 2) and flat) or (strides == (2, 1) and thin)
        return "" if good else f"strides {list(strides)}"

    return Rule("strides must be 1x1 or 2x2 (1x2 along a line of height or width 1)", broken)


def pool_stride() -> Rule:
    """U55 and U65. The writer pads by an operator of its own unless TFLite's SAME will do."""

    def broken(layer: Layer) -> str:
        stride, view = max(ints(layer, "strides", (1,))), _window(layer)
        padded = view is not None and view.mode == SAME and not (layer.op == "AveragePool" and _counted(layer))
        return f"stride {stride} with padding" if stride > 3 and padded else ""

    return Rule("a stride above 3 needs a window without padding", broken)


def pool_kernel() -> Rule:
    """Size of a window."""

    def broken(layer: Layer) -> str:
        kernel = _kernel(layer)
        height = kernel[0] if len(kernel) > 1 else 1
        fits = math.prod(kernel) <= MAX_KERNEL_ELEMENTS and height <= MAX_KERNEL_HEIGHT
        return "" if fits else f"kernel {list(kernel)}"

    return Rule(f"the window must have at most {MAX_KERNEL_ELEMENTS} elements and height {MAX_KERNEL_HEIGHT}", broken)


def average_window() -> Rule:
    """Padding of an average, as TFLite or a PAD before it can count it."""
    limit = pool_kernel().broken

    def broken(layer: Layer) -> str:
        view = _window(layer)
        if view is None or view.mode == VALID:
            return limit(layer)
        if _counted(layer):
            return f"ceil_mode, padding {view.begin} and {view.end}" if view.overhangs else limit(layer)
        good = view.mode == SAME and max(view.kernel) <= 8
        return "" if good else f"padded kernel {view.kernel}, padding {view.begin} and {view.end}"

    return Rule(
        "an average must be unpadded, or count all of its padding (kernel at most 65536), or be padded SAME with kernel"
        " at most 8",
        broken,
    )
