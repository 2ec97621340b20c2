"""The steps around an inference, as a manifest holds them: from a picture to a tensor, from scores to labels.

Each kind is one frozen set of options under its name (`{"step": "resize", "height": 224, …}`). These are msgspec
structs and not dataclasses, because a list of several kinds needs a tag that tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from npuops.errors import DataError, OptionError
from npuops.models.model import Dim, TensorInfo
from npuops.models.preprocessing import ImagePreprocessing

MAX_PIXELS: Final = 2**26
"""Of a picture, before and after resizing. One by 30,000 pixels take 200 bytes in a file, and gigabytes once they are
224 wide."""
MAX_SIDE: Final = 2**16

Channels = Literal["rgb", "bgr", "gray"]
Layout = Literal["nchw", "nhwc"]


class _Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step"):
    """Base of all kinds: strict, and tagged by name."""


class DecodeImage(_Step, frozen=True, kw_only=True, tag="decode_image"):
    """Bytes of a JPEG, PNG, WebP, GIF (its first frame) or BMP → 8-bit pixels, upright, of one or three channels.

    Attributes:
        channels: and their order.
        max_pixels: a larger picture is refused before it is decoded.
    """

    channels: Channels = "rgb"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        """Refuse a limit that is none."""
        _within("max_pixels", self.max_pixels, 1, MAX_PIXELS)


class Resize(_Step, frozen=True, kw_only=True, tag="resize"):
    """Keep the shape, and let the picture just cover `height` x `width`; bilinear, over the whole area of a pixel."""

    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse sizes that no picture has."""
        _sizes(self.height, self.width)


class CenterCrop(_Step, frozen=True, kw_only=True, tag="center_crop"):
    """Cut `height` x `width` pixels from the middle."""

    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse sizes that no picture has."""
        _sizes(self.height, self.width)


class Normalize(_Step, frozen=True, kw_only=True, tag="normalize"):
    """(pixel · scale - mean) / std for each channel, computed in float64 and rounded once.

    Attributes:
        scale: of a pixel of 0 to 255.
        mean: one for all channels, or one for each, in the order of the decoded channels.
        std: likewise.
        dtype: of the result.
    """

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dtype: Literal["float16", "float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        ImagePreprocessing(scale=self.scale, mean=self.mean, std=self.std)


class ToTensor(_Step, frozen=True, kw_only=True, tag="to_tensor"):
    """Pixels [height, width, channels] → one row of a batch, [1, C, H, W] or [1, H, W, C]."""

    layout: Layout = "nchw"


class Softmax(_Step, frozen=True, kw_only=True, tag="softmax"):
    """Scores → probabilities, over the last axis of an output."""

    tensor: str


class TopK(_Step, frozen=True, kw_only=True, tag="top_k"):
    """The `k` best classes of an output, best first; of equal scores the lower class."""

    tensor: str
    k: int = 5

    def __post_init__(self) -> None:
        """Refuse a number that is none."""
        _within("k", self.k, 1, 2**16)


PreStep = DecodeImage | Resize | CenterCrop | Normalize | ToTensor
PostStep = Softmax | TopK


def name_of(step: PreStep | PostStep) -> str:
    """As a manifest calls it, for example `decode_image`."""
    return str(step.__struct_config__.tag)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """What happens around an inference: the steps before make `input`, the steps after work on the outputs."""

    input: str
    """The model's input that `preprocess` makes."""
    preprocess: tuple[PreStep, ...]
    postprocess: tuple[PostStep, ...]

    def __post_init__(self) -> None:
        """Refuse an order that has no meaning.

        Raises:
            OptionError: it does not begin with a decoder and end with a tensor, a step comes twice, or too late.
        """
        _check_order("preprocess", self.preprocess, (DecodeImage, Resize, CenterCrop, Normalize, ToTensor))
        _check_order("postprocess", self.postprocess, (Softmax, TopK))
        kinds = [type(step) for step in self.preprocess]
        if kinds[:1] != [DecodeImage] or kinds[-1:] != [ToTensor]:
            raise OptionError("a pipeline's preprocess begins with DecodeImage and ends with ToTensor")
        if (Resize in kinds) != (CenterCrop in kinds):
            raise OptionError("a pipeline's Resize and CenterCrop go together: one covers what the other cuts")
        if [type(step) for step in self.postprocess][-1:] != [TopK]:
            raise OptionError("a pipeline's postprocess ends with TopK")
        if len({step.tensor for step in self.postprocess}) > 1:
            raise OptionError("a pipeline's postprocess works on one output")

    @property
    def output(self) -> str:
        """The model's output that `postprocess` works on."""
        return self.postprocess[-1].tensor


def image_steps(info: TensorInfo, image: ImagePreprocessing) -> tuple[PreStep, ...]:
    """From a picture to one row of this input, in the words of `--image`.

    Args:
        info: [1,C,H,W] or [1,H,W,C] with 1 or 3 channels, float or uint8; the first axis may be open.
        image: how pixels become numbers.

    Raises:
        DataError: an input that is no picture.
        OptionError: options that do not apply to it.
    """
    layout, height, width, channels = _picture(info)
    _refuse_mismatch(info, channels, image)
    steps: list[PreStep] = [
        DecodeImage(channels=image.channels if channels == 3 else "gray"),
        Resize(height=_scaled(height, image.resize), width=_scaled(width, image.resize)),
        CenterCrop(height=height, width=width),
    ]
    if info.dtype != "uint8":
        dtype: Literal["float16", "float32", "float64"] = info.dtype  # type: ignore[assignment]  # checked above
        steps.append(Normalize(scale=image.scale, mean=image.mean, std=image.std, dtype=dtype))
    return (*steps, ToTensor(layout=layout))


def _picture(info: TensorInfo) -> tuple[Layout, int, int, int]:
    """(layout, height, width, channels) of an image input."""
    shape: tuple[Dim, ...] = info.shape or ()
    sizes = [dim for dim in shape[1:] if isinstance(dim, int)]
    if len(shape) == 4 and len(sizes) == 3 and (shape[0] == 1 or not isinstance(shape[0], int)):
        a, b, c = sizes
        if a in {1, 3}:
            return "nchw", b, c, a
        if c in {1, 3}:
            return "nhwc", a, b, c
    raise DataError(
        f"input {info.name!r} {list(shape)} is no image",
        advice="images need [1,C,H,W] or [1,H,W,C] with 1 or 3 channels",
    )


def _refuse_mismatch(info: TensorInfo, channels: int, image: ImagePreprocessing) -> None:
    if info.dtype not in {"float16", "float32", "float64", "uint8"}:
        raise DataError(f"input {info.name!r} is {info.dtype}: images become float or uint8", advice="give an .npz")
    plain = ImagePreprocessing()
    if info.dtype == "uint8" and (image.scale, image.mean, image.std) != (plain.scale, plain.mean, plain.std):
        raise OptionError(f"input {info.name!r} takes raw bytes: scale, mean and std of an image do not apply to it")
    if max(len(image.mean), len(image.std)) > channels:
        raise OptionError(f"mean or std has three values, and input {info.name!r} takes grey images")


def _scaled(size: int, factor: float) -> int:
    return max(size, round(size * factor))


def _check_order(what: str, steps: tuple[object, ...], kinds: tuple[type, ...]) -> None:
    places = [kinds.index(type(step)) for step in steps]
    if places != sorted(set(places)):
        names = ", ".join(kind.__name__ for kind in kinds)
        raise OptionError(f"the steps of a pipeline's {what} come once each, in this order: {names}")


def _sizes(height: int, width: int) -> None:
    _within("height", height, 1, MAX_SIDE)
    _within("width", width, 1, MAX_SIDE)


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise OptionError(f"{name} = {value} is not within {low} to {high}")
