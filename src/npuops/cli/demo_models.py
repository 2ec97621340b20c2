"""The models that the demo shows, with their data: the bundled digits, and MobileNetV2 where its files lie beside."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from npuops import app
from npuops.build.options import BuildOptions
from npuops.build.pipeline import BuildRequest
from npuops.errors import DataError, UsageError
from npuops.evaluate.image_decode import SUFFIXES
from npuops.evaluate.sample_sources import load_samples
from npuops.evaluate.samples import Samples, make_samples
from npuops.models.open import open_model

CROPS_PER_PHOTO = 8
CROP = 224
_BESIDE = "set NPUOPS_SHARED to the folder that holds models/, or run the demo without a name"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoModel:
    """A model with calibration and evaluation data."""

    name: str
    title: str
    path: Path
    calibration: Samples
    evaluation: Samples
    labels: tuple[str, ...]

    def request(self, target: str, options: BuildOptions, calibration: Samples | None = None) -> BuildRequest:
        """A build for one target."""
        return BuildRequest(
            model=self.path,
            target=target,
            calibration=calibration or self.calibration,
            evaluation=self.evaluation,
            options=options,
            labels=self.labels,
        )


def digits() -> DemoModel:
    """The CNN of the bundled zoo on handwritten digits."""
    source = app.find_model("zoo:digits-cnn")
    inputs = open_model(source.path).inputs
    return DemoModel(
        name="digits",
        title="digits-cnn: a small CNN on handwritten digits, from the bundled zoo",
        path=source.path,
        calibration=load_samples(str(source.calibration), inputs),
        evaluation=load_samples(str(source.evaluation), inputs),
        labels=source.labels or (),
    )


def mobilenet() -> DemoModel:
    """The real ImageNet MobileNetV2 on crops of photos, from `shared/models` beside the checkout.

    Raises:
        UsageError: those files are not there; they are no part of npuops.
    """
    folder = shared_models()
    path = folder / "vision" / "mobilenet_v2_1.0_224_fp32.onnx"
    if not path.is_file():
        raise UsageError(
            f"{path} is not there: the real MobileNetV2 is test data beside npuops, not part of it",
            advice=_BESIDE,
        )
    name = open_model(path).inputs[0].name
    photos = photo_files()
    return DemoModel(
        name="mobilenet",
        title="MobileNetV2 1.0/224 (ImageNet) on random crops of real photos",
        path=path,
        calibration=make_samples(crops(photos, name, seed=1), source="random crops of photos, seed 1"),
        evaluation=make_samples(crops(photos, name, seed=2), source="other random crops, seed 2"),
        labels=app.read_labels(folder / "inputs" / "imagenet_labels.txt"),
    )


def shared_models() -> Path:
    """Where the real models lie beside the checkout."""
    return Path(os.environ.get("NPUOPS_SHARED", "../shared")) / "models"


def photo_files() -> list[Path]:
    """The photos beside those models.

    Raises:
        UsageError: there are none.
    """
    folder = shared_models() / "inputs" / "photos"
    photos = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not photos:
        raise UsageError(f"{folder} holds no photos", advice=_BESIDE)
    return photos


def crops(
    photos: list[Path], name: str, *, seed: int, per_photo: int = CROPS_PER_PHOTO
) -> list[dict[str, NDArray[Any]]]:
    """Random square crops, in turn from each photo, as f32[1,3,224,224] in -1..1.

    Raises:
        UsageError: Pillow is not installed.
        DataError: a photo cannot be read.
    """
    try:
        from PIL import Image  # noqa: PLC0415 - an extra, and only this demo reads photos itself
    except ImportError as error:
        raise UsageError("photos need Pillow", advice="pip install 'npuops[images]'") from error

    rng = np.random.default_rng(seed)
    try:
        opened = [Image.open(photo).convert("RGB") for photo in photos]
    except OSError as error:
        raise DataError(f"a photo cannot be read: {error}", advice="take it out of the folder") from error
    found: list[dict[str, NDArray[Any]]] = []
    for _ in range(per_photo):
        for photo in opened:
            side = int(min(photo.size) * rng.uniform(0.5, 1.0))
            left, top = (int(rng.integers(0, size - side + 1)) for size in photo.size)
            square = photo.crop((left, top, left + side, top + side)).resize((CROP, CROP))
            pixels = np.asarray(square, dtype=np.float32) / np.float32(127.5) - 1
            found.append({name: pixels.transpose(2, 0, 1)[None]})
    return found


def backbone(out: Path) -> Path:
    """Write a made-up network of the kind that keeps an NPU busy: 20 convolutions, one behind the other.

    Each is 3x3, 128 to 128 channels, on 160 x 160 (3.8 GMAC); they share their weights, which are 0.
    """
    layers, channels, side = 20, 128, 160
    shape = [1, channels, side, side]
    values = [onnx.helper.make_tensor_value_info(f"x{n}", onnx.TensorProto.FLOAT, shape) for n in (0, layers)]
    nodes = [
        onnx.helper.make_node("Conv", [f"x{n}", "weights"], [f"x{n + 1}"], f"conv_{n}", pads=[1, 1, 1, 1])
        for n in range(layers)
    ]
    weights = onnx.numpy_helper.from_array(np.zeros((channels, channels, 3, 3), np.float32), "weights")
    graph = onnx.helper.make_graph(nodes, "backbone", values[:1], values[1:], [weights])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), out)
    return out


def blank_calibration(model: DemoModel) -> Samples:
    """The calibration set with every value zero: a mistake that no toolchain complains about."""
    blank = [{name: np.zeros_like(array) for name, array in row.items()} for row in model.calibration.inputs]
    return make_samples(blank, source="blank inputs")
