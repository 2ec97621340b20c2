"""Conditions that chips publish, as rules with what was found; each holds for ONNX and TFLite layers alike. Pure.

A model's view holds no values of constants (`npuops.models.model`): what depends on one, such as the steps of a Slice
or the exponent of a Pow, cannot be judged and is taken to be fine. Reduced axes are read off the shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from npuops.models.model import Layer, Model, TensorInfo
from npuops.models.placement import Placement, RunsOn
from npuops.targets.rules import OpRules, Rule, place
from npuops.vnpu.layer_view import (
    Window,
    axis_letter,
    first_in,
    first_out,
    in_both_words,
    integers,
    nchw,
    sizes,
    window_of,
    word,
)


def place_by(
    model: Model, rules: OpRules, *, list_name: str, everywhere: tuple[Rule, ...], both_words: bool = True
) -> tuple[Placement, ...]:
    """Judge every layer; one that is not on the list is told all its other broken rules too.

    Args:
        model: what to place.
        rules: the list, in ONNX words.
        list_name: what to call the list in a reason.
        everywhere: rules for every layer.
        both_words: whether the list holds for the TFLite operators of the same meaning.
    """
    known = in_both_words(rules) if both_words else rules
    names = {_name(layer) for layer in model.layers} - set(known)
    unlisted = Rule(f"operator must be on {list_name}", _name)
    return place(model, {**known, **dict.fromkeys(names, (unlisted,))}, everywhere=everywhere)


def _name(layer: Layer) -> str:
    return layer.op if layer.domain in {"", "ai.onnx"} else f"{layer.domain}.{layer.op}"


def computes_in(formats: Iterable[str], number_format: str) -> tuple[Rule, ...]:
    """No rule where the chip has the number format, else one that every layer breaks."""
    has = tuple(formats)
    if number_format in has:
        return ()
    return (Rule(_format_words(has), lambda _layer: number_format),)


def refused(place: Placement, formats: Iterable[str], number_format: str) -> Placement:
    """What another module placed, on the CPU if the chip lacks the number format; its own reason stays beside."""
    has = tuple(formats)
    if number_format in has:
        return place
    rule = _format_words(has)
    if place.runs_on is RunsOn.NPU:
        return replace(place, runs_on=RunsOn.CPU, rule=rule, found=number_format)
    return replace(place, rule=f"{rule}; {place.rule}", found=f"{number_format}; {place.found}")


def _format_words(has: tuple[str, ...]) -> str:
    return f"number format must be {' or '.join(has)}"


def never(words: str) -> Rule:
    """On the list, and never on the NPU by itself."""
    return Rule(words, lambda layer: layer.op)


def _on_window(words: str, found: Callable[[Window], str]) -> Rule:
    def broken(layer: Layer) -> str:
        window = window_of(layer)
        return found(window) if window is not None else ""

    return Rule(words, broken)


def _outside(values: Sequence[int], low: int, high: int) -> bool:
    return any(not low <= value <= high for value in values)


def kernel_within(low: int, high: int) -> Rule:
    """Height and width of the window."""
    return _on_window(
        f"kernel must be {low} to {high}", lambda w: f"kernel {list(w.kernel)}" if _outside(w.kernel, low, high) else ""
    )


def kernel_by_kind(dense: int, depthwise: int) -> Rule:
    """A limit for convolutions, and another for depthwise ones."""

    def found(window: Window) -> str:
        limit = depthwise if window.depthwise else dense
        kind = "depthwise kernel" if window.depthwise else "kernel"
        return f"{kind} {list(window.kernel)}" if _outside(window.kernel, 1, limit) else ""

    return _on_window(f"kernel must be at most {dense}, depthwise {depthwise}", found)


def strides_within(low: int, high: int) -> Rule:
    """Steps of the window."""
    return _on_window(
        f"strides must be {low} to {high}",
        lambda w: f"strides {list(w.strides)}" if _outside(w.strides, low, high) else "",
    )


def strides_in(allowed: tuple[int, ...]) -> Rule:
    """Steps of the window, one of a few."""
    return _on_window(
        f"strides must be one of {', '.join(map(str, allowed))}",
        lambda w: f"strides {list(w.strides)}" if not set(w.strides) <= set(allowed) else "",
    )


def pads_within(high: int) -> Rule:
    """Explicit padding on any side."""
    return _on_window(
        f"padding must be 0 to {high}", lambda w: f"pads {list(w.pads)}" if _outside(w.pads, 0, high) else ""
    )


def dilations_within(high: int) -> Rule:
    """Holes of the window."""
    return _on_window(
        f"dilations must be 1 to {high}",
        lambda w: f"dilations {list(w.dilations)}" if _outside(w.dilations, 1, high) else "",
    )


def dilations_by_kind(dense: int, depthwise: int) -> Rule:
    """A limit for convolutions, and another for depthwise ones."""

    def found(window: Window) -> str:
        limit = depthwise if window.depthwise else dense
        return f"dilations {list(window.dilations)}" if _outside(window.dilations, 1, limit) else ""

    return _on_window(f"dilations must be at most {dense}, depthwise {depthwise}", found)


def pads_inside_kernel() -> Rule:
    """No side is padded by more than the window reaches, holes included."""

    def found(window: Window) -> str:
        reach = [(k - 1) * d for k, d in zip(window.kernel, window.dilations, strict=False)]
        wide = window.pads and any(pad > limit for pad, limit in zip(window.pads, reach * 2, strict=False))
        return f"pads {list(window.pads)} of kernel {list(window.kernel)}" if wide else ""

    return _on_window("padding must be smaller than the kernel", found)


def padding_counted() -> Rule:
    """An average over a padded window counts the padding (ONNX `count_include_pad`)."""

    def broken(layer: Layer) -> str:
        window = window_of(layer)
        padded = window is not None and any(window.pads)
        return "count_include_pad 0" if padded and not layer.attributes.get("count_include_pad", 0) else ""

    return Rule("padding must be counted", broken)


def flat_window() -> Rule:
    """At most two dimensions of space."""
    return _on_window(
        "windows in one or two dimensions only", lambda w: f"kernel {list(w.kernel)}" if len(w.kernel) > 2 else ""
    )


def plain_or_depthwise() -> Rule:
    """One group, or one channel in each."""
    return _on_window(
        "groups must be 1, or one for each channel",
        lambda w: f"{w.groups} groups" if w.groups > 1 and not w.depthwise else "",
    )


def window_obeys(words: str, found: Callable[[Window], str]) -> Rule:
    """A condition that only one chip has; `found` returns what was found, or "" when it holds."""
    return _on_window(words, found)


def sizes_at_most(limit: int) -> Rule:
    """No axis of an activation is longer; what is made of constants alone is none."""

    def broken(layer: Layer) -> str:
        flowing = (*layer.inputs, *layer.outputs) if layer.inputs else ()
        longest = max((dim for tensor in flowing for dim in sizes(tensor)), default=0)
        return f"size {longest}" if longest > limit else ""

    return Rule(f"every size must be at most {limit}", broken)


def channels_at_most(limit: int) -> Rule:
    """Channels of the image that flows in; other ranks are not judged."""

    def broken(layer: Layer) -> str:
        image = nchw(layer, first_in(layer))
        return f"{image[1]} channels" if image is not None and image[1] > limit else ""

    return Rule(f"at most {limit} channels", broken)


def plane_at_most(limit: int, *, side: bool = False) -> Rule:
    """Height times width (or each of them) of what is reduced to one value."""

    def broken(layer: Layer) -> str:
        image = nchw(layer, first_in(layer))
        if image is None:
            return ""
        wide = max(image[2:]) if side else image[2] * image[3]
        return f"{image[2]}x{image[3]}" if wide > limit else ""

    return Rule(f"{'height and width' if side else 'height x width'} must be at most {limit}", broken)


def batch_one_of_image() -> Rule:
    """The first size of the data is 1, from rank 4."""

    def broken(layer: Layer) -> str:
        shape = first_in(layer)
        return f"batch {shape[0]}" if len(shape) >= 4 and shape[0] != 1 else ""

    return Rule("batch must be 1", broken)


def same_batch() -> Rule:
    """The first axis is not touched: neither padded, nor reduced, nor joined."""

    def broken(layer: Layer) -> str:
        before, after = first_in(layer), first_out(layer)
        if len(before) != len(after) or len(before) < 4:
            return ""
        return f"batch {before[0]} to {after[0]}" if before[0] != after[0] else ""

    return Rule("the batch axis must stay", broken)


def only_height_and_width_change() -> Rule:
    """Batch and channels of an image keep their sizes; other ranks are not judged."""

    def broken(layer: Layer) -> str:
        before, after = nchw(layer, first_in(layer)), nchw(layer, first_out(layer))
        if before is None or after is None or before[:2] == after[:2]:
            return ""
        return f"{list(first_in(layer))} to {list(first_out(layer))}"

    return Rule("only height and width may change", broken)


def constant_operand(what: str) -> Rule:
    """One operand is known before the run."""
    return Rule(f"{what} must be constant", lambda layer: "" if layer.weights else f"{what} computed at run time")


def one_constant(what: str) -> Rule:
    """The operand that is known before the run is a single value."""

    def broken(layer: Layer) -> str:
        count = max((math.prod(sizes(tensor)) for tensor in layer.weights), default=0)
        return "" if count == 1 else f"{count} of them" if count else "computed at run time"

    return Rule(f"the {what} must be one constant", broken)


def gather_indices(layer: Layer) -> TensorInfo | None:
    """The second operand of a Gather, constant or not: the view keeps activations and constants apart."""
    if len(layer.inputs) > 1:
        return layer.inputs[1]
    constant = layer.weights[0] if layer.weights else None
    return constant if constant is not None and constant.dtype in {"int32", "int64"} else (layer.inputs or (None,))[0]


def indices_of_rank(*allowed: int) -> Rule:
    """How many axes the indices of a Gather have."""

    def broken(layer: Layer) -> str:
        indices = gather_indices(layer)
        rank = allowed[0] if indices is None or indices.shape is None else len(indices.shape)
        return f"indices of rank {rank}" if rank not in allowed else ""

    return Rule(f"indices must be of rank {' or '.join(map(str, allowed))}", broken)


def varying_operand() -> Rule:
    """At least one operand flows."""
    return Rule("one operand must be an activation", lambda layer: "" if layer.inputs else "constants only")


def axis_among(letters: str, *, default: int = -1, others: tuple[str, ...] = ("last",)) -> Rule:
    """The axis of an image is one of `letters`; at another rank it is one of `others`."""

    def broken(layer: Layer) -> str:
        rank = len(first_in(layer))
        letter = axis_letter(layer, integers(layer, "axis", (default,))[0], rank) if rank else ""
        fine = not letter or letter in (letters if rank == 4 else others)
        return "" if fine else f"axis {letter} of rank {rank}"

    return Rule(f"axis must be {', '.join(letters)}", broken)


def word_among(name: str, allowed: tuple[str, ...], default: str) -> Rule:
    """An attribute is one of a few words."""

    def broken(layer: Layer) -> str:
        value = word(layer, name, default)
        return "" if value in allowed else f"{name} {value}"

    return Rule(f"{name} must be {' or '.join(allowed)}", broken)


def number_is(name: str, value: float, default: float) -> Rule:
    """A real attribute has one value (within float32)."""

    def broken(layer: Layer) -> str:
        found = layer.attributes.get(name, default)
        right = isinstance(found, int | float) and math.isclose(found, value, rel_tol=1e-5)
        return "" if right else f"{name} {found}"

    return Rule(f"{name} must be {value:g}", broken)


def busy_rank_at_most(limit: int) -> Rule:
    """Axes longer than 1 of any activation that flows in."""

    def broken(layer: Layer) -> str:
        most = max((sum(dim > 1 for dim in sizes(tensor)) for tensor in layer.inputs), default=0)
        return f"{most} axes longer than 1" if most > limit else ""

    return Rule(f"at most {limit} axes may be longer than 1", broken)


def operands_at_most(limit: int) -> Rule:
    """Activations and constants together."""

    def broken(layer: Layer) -> str:
        count = len(layer.inputs) + len(layer.weights)
        return f"{count} operands" if count > limit else ""

    return Rule(f"at most {limit} operands", broken)


def spatial_reduction(limit: Rule | None = None) -> Rule:
    """A reduction over height and width, which is a pool over the whole plane; `limit` is the pool's."""

    def broken(layer: Layer) -> str:
        image, after = nchw(layer, first_in(layer)), first_out(layer)
        if image is None or math.prod(after) != image[0] * image[1]:
            return f"{list(first_in(layer))} to {list(after)}"
        return limit.broken(layer) if limit is not None else ""

    more = f", and {limit.words}" if limit is not None else ""
    return Rule(f"reduces height and width of an image to one value{more}", broken)


def resize_scales(layer: Layer) -> tuple[float, float] | None:
    """How much a Resize enlarges height and width; None where it is not an image or other axes change."""
    before, after = nchw(layer, first_in(layer)), nchw(layer, first_out(layer))
    if before is None or after is None or before[:2] != after[:2] or 0 in before:
        return None
    return after[2] / before[2], after[3] / before[3]


def resize_kind(layer: Layer) -> tuple[str, str]:
    """Interpolation and coordinate mode in ONNX words."""
    if layer.op in {"RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"}:
        mode = "linear" if layer.op == "RESIZE_BILINEAR" else "nearest"
        if layer.attributes.get("align_corners"):
            return mode, "align_corners"
        return mode, "half_pixel" if layer.attributes.get("half_pixel_centers") else "asymmetric"
    return word(layer, "mode", "nearest"), word(layer, "coordinate_transformation_mode", "half_pixel")


def repeats_pixels(layer: Layer) -> bool:
    """Nearest by a whole factor: every coordinate mode but align_corners gives the same result."""
    scales, (mode, where) = resize_scales(layer), resize_kind(layer)
    whole = scales is not None and all(scale >= 1 and scale.is_integer() for scale in scales)
    return whole and mode == "nearest" and where != "align_corners"
