"""The repository of the soak: models whose answers nobody can mistake for another's, served in every way there is.

Each has weights or a factor of its own and is asked with many inputs, so that an answer that belongs to another
request, another model or another version is a wrong one.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from ours import CHIP, built
from PIL import Image
from served_models import finished, ort_session, steady, tiny
from soak_questions import Question

VARIANTS = 24
"""Different inputs for each model."""
WIDE = 1 << 16
"""Numbers in an answer of `wide`: 256 KiB, more than the buffers of a connection hold."""
FACTORS = {"1": 5.0, "0": 7.0}
"""Of `swapped`: by whether its version is odd."""
SERVE = """\
poll_s = 1.0
file_uploads = false

[limits]
body_s = 10.0
idle_s = 60.0

[tenant.camera]
weight = 4.0
priority = 0

[tenant.reindex]
priority = 2
rate = 20.0
burst = 5.0
"""
TENANTS = ("", "camera", "reindex", "nobody")
WITH_QUOTA = "reindex"
DOUBLE = """\
inputs = ["x"]
outputs = ["z"]

[[step]]
model = "tiny"
inputs = { x = "x" }
outputs = { y = "between" }

[[step]]
model = "head"
inputs = { y = "between" }
outputs = { z = "z" }
"""
PAIR = """\
run_limit_s = 3

[[device]]
target = "ort-cpu"
instances = 2
"""
MIXED = """\
fallback = "allow"
run_limit_s = 3

[[device]]
target = "{chip}"
name = "{name}"

[[device]]
target = "ort-cpu"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """What is served, and what it is asked."""

    folder: Path
    config: Path
    swaps: Mapping[str, Path]
    """Whether a version is odd → its artifact."""
    questions: Mapping[str, list[Question]]
    """By model."""


def make_repository(models: Path, scratch: Path, device: str) -> Repository:
    """Build what is not built yet below `models`, and lay a repository out in `scratch`; `device` is a virtual one."""
    models.mkdir(parents=True, exist_ok=True)
    files = {name: saved(models / f"{name}.onnx", proto) for name, proto in networks().items()}
    artifacts = {name: fp32(path) for name, path in files.items()}
    folder = scratch / "repository"
    for name, source in {"tiny": "tiny", "pair": "pair", "steady": "steady", "wide": "wide", "head": "head"}.items():
        shutil.copytree(artifacts[source], folder / name / "1")
    for name in ("extra", "sleeper"):
        shutil.copytree(artifacts[name], folder / name / "1")
    shutil.copytree(artifacts["odd"], folder / "swapped" / "1")
    shutil.copytree(artifacts["mixed"], folder / "mixed" / "1" / "cpu")
    shutil.copytree(vnpu(files["mixed"]), folder / "mixed" / "1" / "npu")
    shutil.copytree(picture_artifact(models), folder / "picture" / "1")
    (folder / "double").mkdir()
    (folder / "double" / "chain.toml").write_text(DOUBLE)
    (folder / "pair" / "model.toml").write_text(PAIR)
    (folder / "mixed" / "model.toml").write_text(MIXED.format(chip=CHIP, name=device))
    (folder / "sleeper" / "model.toml").write_text("[idle]\nkeep_alive_s = 2\nprewarm = false\n")
    config = scratch / "serve.toml"
    config.write_text(SERVE)
    return Repository(
        folder=folder,
        config=config,
        swaps={"1": artifacts["odd"], "0": artifacts["even"]},
        questions=questions(files, folder / "picture" / "1" / "compiled.onnx"),
    )


def networks() -> dict[str, onnx.ModelProto]:
    """Every network of the soak but the pictures'."""
    found = {"tiny": tiny(), "steady": steady(), "wide": wide(), "head": head()}
    factors = {"pair": -2.0, "extra": -3.0, "sleeper": 3.0, "odd": FACTORS["1"], "even": FACTORS["0"], "mixed": -1.0}
    return found | {name: times(factor) for name, factor in factors.items()}


def times(factor: float) -> onnx.ModelProto:
    """The tiny network, its last layer times a factor."""
    proto = tiny()
    for weight in proto.graph.initializer:
        if weight.name == "w3":
            weight.CopyFrom(numpy_helper.from_array(np.float32(factor) * numpy_helper.to_array(weight), "w3"))
    return proto


def head() -> onnx.ModelProto:
    """y: f32[N,10] → z = 1 - 2y: the chain's second step."""
    numbers = {"m": -2, "one": 1}
    weights = [numpy_helper.from_array(np.array([value], np.float32), name) for name, value in numbers.items()]
    nodes = [
        helper.make_node("Mul", ["y", "m"], ["scaled"], name="scale"),
        helper.make_node("Add", ["scaled", "one"], ["z"], name="shift"),
    ]
    return small("head", nodes, weights, ("y", 10), ("z", 10))


def wide() -> onnx.ModelProto:
    """x: f32[N,16] → y: f32[N,65536], the row again and again."""
    repeats = numpy_helper.from_array(np.array([1, WIDE // 16], np.int64), "repeats")
    nodes = [helper.make_node("Tile", ["x", "repeats"], ["y"], name="tile")]
    return small("wide", nodes, [repeats], ("x", 16), ("y", WIDE))


def small(
    name: str, nodes: list[onnx.NodeProto], weights: list[TensorProto], given: tuple[str, int], taken: tuple[str, int]
) -> onnx.ModelProto:
    """One input and one output with a free first axis."""
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["batch", size]) for end, size in (given, taken)]
    return finished(helper.make_graph(nodes, name, ends[:1], ends[1:], weights))


def saved(path: Path, proto: onnx.ModelProto) -> Path:
    """Write a network where it does not lie yet."""
    if not path.is_file():
        part = path.with_suffix(".part")
        onnx.save(proto, part)
        part.replace(path)
    return path


def fp32(path: Path) -> Path:
    """The artifact of a network for ONNX Runtime."""
    flags = ["--target", "ort-cpu", "--precision", "fp32", "--set", "intra_op_num_threads=1"]
    batched = [] if path.stem == "steady" else ["--dynamic-batch"]
    return built(path, path.parent / "artifacts" / f"{path.stem}-fp32-1t", flags + batched)


def vnpu(path: Path) -> Path:
    """The same, quantized for the virtual device; one row at a time."""
    artifacts = path.parent / "artifacts"
    artifacts.mkdir(exist_ok=True)
    noise = artifacts / f"{path.stem}-noise.npz"
    np.savez(noise, x=np.random.default_rng(9).standard_normal((16, 1, 28, 28)).astype("f"))
    flags = ["--target", CHIP, "--shape", "x=1x1x28x28", "--calibration", str(noise), "--fallback", "allow"]
    return built(path, artifacts / f"{path.stem}-vnpu", flags)


def picture_artifact(models: Path) -> Path:
    """Handwritten digits with a pipeline: a picture in, the five best classes out."""
    flags = ["--target", "ort-cpu", "--precision", "fp32", "--image", "resize=1", "--pipeline", "image-classification"]
    return built("zoo:digits-cnn", models / "artifacts" / "picture", flags)


def questions(files: Mapping[str, Path], digits: Path) -> dict[str, list[Question]]:
    """What each model is asked, with the right answers: by ONNX Runtime in this process, one row after the other."""
    chance = np.random.default_rng(17)
    noise = [rounded(chance.standard_normal((1 + index % 3, 1, 28, 28))) for index in range(VARIANTS)]
    found: dict[str, list[Question]] = {}
    for name in ("tiny", "pair", "extra", "sleeper"):
        found[name] = plain(name, noise, "x", "y", answers(files[name], noise))
    odd, even = answers(files["odd"], noise), answers(files["even"], noise)
    found["swapped"] = [
        Question(model="swapped", inputs={"x": x}, answers={"1": {"y": first}, "0": {"y": second}})
        for x, first, second in zip(noise, odd, even, strict=True)
    ]
    found["double"] = plain("double", noise, "x", "z", [1 - 2 * y for y in answers(files["tiny"], noise)])
    single = [rows[:1] for rows in noise]
    found["mixed"] = plain("mixed", single, "x", "y", answers(files["mixed"], single), near=True)
    fields = [rounded(chance.standard_normal((1, 1, 32, 32))) for _ in range(VARIANTS)]
    found["steady"] = plain("steady", fields, "x", "y", answers(files["steady"], fields))
    rows = [rounded(chance.standard_normal((1, 16))) for _ in range(VARIANTS)]
    found["wide"] = plain("wide", rows, "x", "y", answers(files["wide"], rows))
    found["picture"] = pictures(chance, digits)
    return found


def plain(
    name: str, inputs: list[NDArray[Any]], given: str, taken: str, right: list[NDArray[Any]], *, near: bool = False
) -> list[Question]:
    """Questions with one input, one output, and the same answer whichever version gives it."""
    rivals = tuple(right) if near else ()
    return [
        Question(model=name, inputs={given: x}, answers={"": {taken: y}}, rivals=rivals)
        for x, y in zip(inputs, right, strict=True)
    ]


def answers(path: Path, inputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Row by row: what a batch does to an answer is the server's business."""
    session = ort_session(path)
    (given,) = session.get_inputs()
    return [np.concatenate([session.run(None, {given.name: row[None]})[0] for row in rows]) for rows in inputs]


def pictures(chance: np.random.Generator, digits: Path) -> list[Question]:
    """Gray PNGs of the network's own size, 1 to 3 in a request; the pipeline is done by hand here."""
    session = ort_session(digits)
    (given,) = session.get_inputs()
    found = []
    for index in range(VARIANTS):
        pixels = chance.integers(0, 256, (1 + index % 3, 8, 8), np.uint8)
        rows = pixels[:, None].astype(np.float32) / 255
        logits = np.concatenate([session.run(None, {given.name: row[None]})[0] for row in rows]).astype(np.float64)
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        names = order.astype(str).astype(object)  # the labels of the digits are the digits
        right = {"label": names, "index": order.astype(np.int64)}
        right["score"] = np.take_along_axis(scores, order, 1).astype(np.float32)
        images = np.array([png(each) for each in pixels], object)
        found.append(Question(model="picture", inputs={"image": images}, answers={"": right}))
    return found


def png(pixels: NDArray[np.uint8]) -> bytes:
    """One gray picture."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def rounded(array: NDArray[Any]) -> NDArray[np.float32]:
    """Four decimals, so that JSON and binary say the same."""
    return np.asarray(np.round(array, 4), np.float32)
