"""`--pipeline`: the steps that a server takes before and after an inference, derived from what the build knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from npuops.errors import DataError, OptionError, UsageError, nearest
from npuops.models.model import Layer, Model, TensorInfo
from npuops.models.preprocessing import ImagePreprocessing
from npuops.models.steps import Pipeline, PostStep, Softmax, TopK, image_steps

IMAGE_CLASSIFICATION: Final = "image-classification"
KINDS: Final = (IMAGE_CLASSIFICATION,)
BEST: Final = 5
"""Classes in an answer, where there are as many."""

_SHOWS: Final = frozenset(
    {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "QuantizeLinear", "DequantizeLinear"}
)
"""Operators that change how scores are written, and not what they are."""
_PROBABILITIES: Final = frozenset({"Softmax", "Sigmoid", "HardSigmoid"})


def check_kind(kind: str | None) -> None:
    """Refuse a slip in the name before any work; None is no pipeline.

    Raises:
        OptionError: no such pipeline.
    """
    if kind is not None and kind not in KINDS:
        raise OptionError(f"no pipeline {kind!r}", advice=nearest(kind, KINDS))


def image_classification(model: Model, image: ImagePreprocessing | None, labels: tuple[str, ...] | None) -> Pipeline:
    """A picture in, the best classes out.

    Args:
        model: with any number of rows; its first output holds the scores.
        image: how pixels become numbers, as in calibration.
        labels: of the classes; None leaves them without names.

    Raises:
        UsageError: nobody said how pixels become numbers.
        DataError: the model takes no picture, or gives no scores.
        OptionError: other labels than classes.
    """
    if image is None:
        raise UsageError(
            f"--pipeline {IMAGE_CLASSIFICATION} must know how pixels become numbers",
            advice="say it with --image, for example --image mean=0.485,0.456,0.406 --image std=0.229,0.224,0.225",
        )
    if len(model.inputs) != 1:
        names = ", ".join(tensor.name for tensor in model.inputs)
        raise DataError(f"a picture makes one input, the model has {len(model.inputs)}: {names}")
    output = model.outputs[0]
    classes = _classes(output)
    if labels is not None and len(labels) != classes:
        raise OptionError(f"{len(labels)} labels for the {classes} classes of output {output.name!r}")
    after: tuple[PostStep, ...] = (TopK(tensor=output.name, k=min(BEST, classes)),)
    if not _are_probabilities(model, output.name):
        after = (Softmax(tensor=output.name), *after)
    # A picture is one row, however many of them a run of this artifact takes: that is for the server to fill.
    row = replace(model.inputs[0], shape=(1, *(model.inputs[0].shape or ())[1:]))
    return Pipeline(input=row.name, preprocess=image_steps(row, image), postprocess=after)


def _classes(output: TensorInfo) -> int:
    sizes = [dim for dim in (output.shape or ())[1:] if isinstance(dim, int)]
    wide = [size for size in sizes if size != 1]
    if output.shape is None or len(sizes) != len(output.shape) - 1 or len(wide) != 1:
        raise DataError(
            f"output {output.name!r} {list(output.shape or ())} holds no scores of classes",
            advice=f"{IMAGE_CLASSIFICATION} needs [1, classes] as the first output",
        )
    return wide[0]


def _are_probabilities(model: Model, tensor: str) -> bool:
    """What computes the scores, behind whatever only moves or rounds them."""
    makers: dict[str, Layer] = {info.name: layer for layer in model.layers for info in layer.outputs}
    layer = makers.get(tensor)
    while layer is not None and layer.op in _SHOWS and layer.inputs:
        layer = makers.get(layer.inputs[0].name)
    return layer is not None and layer.op in _PROBABILITIES
