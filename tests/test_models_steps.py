"""The options of steps: strict, and refused where they have no meaning."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from npuops.errors import DataError, OptionError
from npuops.models.model import TensorInfo
from npuops.models.preprocessing import ImagePreprocessing
from npuops.models.steps import (
    CenterCrop,
    DecodeImage,
    Normalize,
    Pipeline,
    PreStep,
    Resize,
    Softmax,
    TopK,
    ToTensor,
    image_steps,
)

BEFORE: tuple[PreStep, ...] = (DecodeImage(), Resize(height=8, width=8), CenterCrop(height=8, width=8), ToTensor())
AFTER = (Softmax(tensor="y"), TopK(tensor="y"))


def test_a_pipeline_comes_back_from_json_as_it_was() -> None:
    pipeline = Pipeline(input="x", preprocess=BEFORE, postprocess=AFTER)
    text = msgspec.json.encode(pipeline)
    assert b'{"step":"center_crop","height":8,"width":8}' in text
    assert msgspec.json.decode(text, type=Pipeline) == pipeline


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"step":"resize","height":8,"width":8,"mode":"cubic"}', "unknown field `mode`"),
        ('{"step":"rotate"}', "rotate"),
        ('{"step":"resize","height":8}', "width"),
        ('{"step":"decode_image","channels":"rgba"}', "rgba"),
    ],
)
def test_an_unknown_step_key_or_value_is_refused(text: str, words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.json.decode(text, type=PreStep)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (BEFORE[1:], AFTER, "begins with DecodeImage"),
        (BEFORE[:-1], AFTER, "ends with ToTensor"),
        ((BEFORE[0], BEFORE[2], BEFORE[1], BEFORE[3]), AFTER, "in this order"),
        ((BEFORE[0], *BEFORE), AFTER, "once each"),
        ((BEFORE[0], BEFORE[1], BEFORE[3]), AFTER, "go together"),
        (BEFORE, AFTER[:1], "ends with TopK"),
        (BEFORE, (Softmax(tensor="a"), TopK(tensor="b")), "one output"),
    ],
)
def test_an_order_without_meaning_is_refused(before: Any, after: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Pipeline(input="x", preprocess=before, postprocess=after)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Resize(height=0, width=8),
        lambda: CenterCrop(height=8, width=1 << 20),
        lambda: DecodeImage(max_pixels=1 << 40),
        lambda: Normalize(std=(0.0,)),
        lambda: TopK(tensor="y", k=0),
    ],
)
def test_an_impossible_number_is_refused(make: Any) -> None:
    with pytest.raises(OptionError):
        make()


def steps(shape: tuple[int | str, ...], dtype: str = "float32", **image: Any) -> tuple[PreStep, ...]:
    return image_steps(TensorInfo(name="x", dtype=dtype, shape=shape), ImagePreprocessing(**image))


def test_the_steps_follow_from_the_input_and_the_preprocessing() -> None:
    assert steps((1, 3, 224, 192), resize=1.25, mean=(0.5,)) == (
        DecodeImage(),
        Resize(height=280, width=240),
        CenterCrop(height=224, width=192),
        Normalize(mean=(0.5,)),
        ToTensor(layout="nchw"),
    )
    assert steps(("batch", 8, 8, 1), "uint8") == (
        DecodeImage(channels="gray"),
        Resize(height=8, width=8),
        CenterCrop(height=8, width=8),
        ToTensor(layout="nhwc"),
    )


@pytest.mark.parametrize("shape", [(1, 4096), (2, 3, 8, 8), (1, 5, 8, 9), (1, 3, "h", "w"), ()])
def test_an_input_that_is_no_picture_is_refused(shape: tuple[int | str, ...]) -> None:
    with pytest.raises(DataError, match="is no image"):
        steps(shape)


def test_options_that_do_not_apply_are_refused() -> None:
    with pytest.raises(OptionError, match="raw bytes"):
        steps((1, 3, 8, 8), "uint8", mean=(0.5,))
    with pytest.raises(OptionError, match="grey images"):
        steps((1, 1, 8, 8), mean=(0.1, 0.2, 0.3))
    with pytest.raises(DataError, match="int64"):
        steps((1, 3, 8, 8), "int64")
