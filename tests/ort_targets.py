"""Artifacts of the ONNX-Runtime-based targets, made for tests; the functions at the end run in child processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx import version_converter as converter

from npuops.artifacts.manifest import Artifact
from npuops.errors import RunError
from npuops.models.open import open_model
from npuops.targets.conformance import Outcome, Subject, as_artifact, check_all
from npuops.targets.ort_engine import open_session
from npuops.targets.protocol import CompileOptions, Precision, Profile, Tensors
from npuops.targets.qnn_htp import QnnHtpTarget, engine_for
from npuops.targets.qnn_socs import SOCS
from npuops.targets.registry import open_target
from qdq_nets import quantize

Array = NDArray[Any]
Feeds = dict[str, Array]


def photo_feeds(photos: Path, image: Any, places: Sequence[float] = (0.5,)) -> list[Feeds]:
    """Squares of each photo, 224 pixels wide, in -1..1, channels first; 0.5 is the middle, 0 and 1 the ends."""
    return [feed for place in places for feed in _squares(photos, image, place)]


def _squares(photos: Path, image: Any, place: float) -> list[Feeds]:
    feeds = []
    for path in sorted(photos.iterdir()):
        with image.open(path) as picture:
            side = min(picture.size)
            left, top = int((picture.width - side) * place), int((picture.height - side) * place)
            crop = picture.convert("RGB").crop((left, top, left + side, top + side)).resize((224, 224))
        pixels = np.asarray(crop, dtype=np.float32) / 127.5 - 1
        feeds.append({"x": np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])})
    return feeds


def random_feeds(model: Path, count: int, seed: int = 0) -> list[Feeds]:
    """Uniform values in -1..1 for every input of a model with fixed shapes."""
    rng = np.random.default_rng(seed)
    inputs = open_model(model).inputs
    return [
        {tensor.name: rng.uniform(-1, 1, size=tensor.shape).astype(tensor.dtype) for tensor in inputs}  # type: ignore[arg-type]
        for _ in range(count)
    ]


def modern(source: Path, folder: Path) -> Path:
    """The same graph in opset 13 and a present IR version: the quantizer wants both."""
    proto = onnx.load(source)
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.ir_version = max(proto.ir_version, 8)
    if proto.opset_import[0].version < 13:
        proto = converter.convert_version(proto, 13)
    path = folder / f"{source.stem}-13.onnx"
    onnx.save(proto, path)
    return path


def quantized(source: Path, folder: Path, feeds: Sequence[Feeds] | None = None, **options: Any) -> Path:
    """u8 activations and s8 per-channel weights by onnxruntime.quantization."""
    folder.mkdir(parents=True, exist_ok=True)
    ready = modern(source, folder)
    return quantize(ready, feeds if feeds is not None else random_feeds(ready, 4), folder, **options)


def embedding(path: Path) -> Path:
    """ids int32[1,3] → an 8 x 4 table of uint8 → y f32[1,3,4]."""
    table = np.random.default_rng(0).integers(0, 255, size=(8, 4)).astype(np.uint8)
    constants = {"q": table, "s": np.float32(0.03), "z": np.uint8(128)}
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["t"], name="table"),
        helper.make_node("Gather", ["t", "ids"], ["e"], name="look_up"),
        helper.make_node("QuantizeLinear", ["e", "s", "z"], ["eq"], name="quantize"),
        helper.make_node("DequantizeLinear", ["eq", "s", "z"], ["y"], name="dequantize"),
    ]
    graph = helper.make_graph(
        nodes,
        "embedding",
        [helper.make_tensor_value_info("ids", TensorProto.INT32, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def build(
    target: str, model: Path, precision: Precision, folder: Path, vendor: Mapping[str, str] | None = None
) -> Artifact:
    """Compile into `folder` and describe it as an artifact, the compiler's own placement included."""
    folder.mkdir(parents=True, exist_ok=True)
    chip, read, options = open_target(target), open_model(model), dict(vendor or {})
    compilation = chip.compile(read, CompileOptions(precision=precision, vendor=options), folder)
    subject = Subject(target=chip, model=read, precision=precision, inputs={}, scratch=folder)
    artifact = as_artifact(subject, compilation, folder)
    manifest = artifact.manifest
    return Artifact(
        folder,
        replace(
            manifest,
            placement=replace(manifest.placement, nodes=compilation.placement),
            compile=replace(manifest.compile, vendor_options=options),
        ),
    )


def run_all(artifact: Artifact, feeds: Sequence[Tensors]) -> list[Feeds]:
    """One session, every input once."""
    runner = open_target(artifact.manifest.target).runner
    assert runner is not None
    session = runner.open(artifact)
    try:
        return [session.run(feed) for feed in feeds]
    finally:
        session.close()


def promises_kept(target: str, model: Path, precision: Precision, folder: Path) -> tuple[Outcome, ...]:
    """The conformance suite on one model."""
    read = open_model(model)
    subject = Subject(
        target=open_target(target),
        model=read,
        precision=precision,
        inputs=random_feeds(model, 1)[0],
        scratch=folder,
    )
    return check_all(subject)


def build_and_run(
    target: str,
    model: Path,
    precision: Precision,
    folder: Path,
    feeds: Sequence[Tensors],
    vendor: Mapping[str, str] | None = None,
) -> tuple[Artifact, list[Feeds]]:
    """In a child: compile, then run."""
    artifact = build(target, model, precision, folder, vendor)
    return artifact, run_all(artifact, feeds)


def straight_from_the_graph(target: str, model: Path, feeds: Sequence[Tensors]) -> list[list[Array]]:
    """In a child: the outputs of a session that compiles in memory, as a whole, with no file between."""
    chip = open_target(target)
    assert isinstance(chip, QnnHtpTarget)
    session = open_session(engine_for(chip.soc, Precision.A8W8, {}), model, whole=True)
    return [session.run(None, dict(feed)) for feed in feeds]


def refused_then_served(artifact: Artifact, bad: Tensors, good: Tensors) -> tuple[str, Feeds, tuple[str, ...]]:
    """In a child: the words of the refusal, the answer to a good request after it, and the providers then."""
    runner = open_target(artifact.manifest.target).runner
    assert runner is not None
    session: Any = runner.open(artifact)
    try:
        session.run(bad)
    except RunError as error:
        words = error.message
    else:
        words = ""
    return words, session.run(good), session.providers


def profile_of(artifact: Artifact, feed: Tensors) -> Profile:
    """In a child."""
    return open_target(artifact.manifest.target).profile(artifact, feed)


def taken_whole(models: Mapping[str, Path]) -> dict[str, bool]:
    """In a child: name → whether the HTP of a sm8650 takes every node of that graph."""
    answers = {}
    for name, path in models.items():
        session = open_session(engine_for(SOCS["sm8650"], Precision.FP16, {}), path, whole=False)
        parts = session.get_provider_graph_assignment_info()
        answers[name] = all(part.ep_name == session.get_providers()[0] for part in parts)
    return answers
