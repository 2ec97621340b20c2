"""`npuops build` as a user meets it: pictures in, a bundle out, and a clear answer to whatever goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from command_line import npuops
from npuops import app
from npuops.artifacts.folder import open_artifact
from npuops.artifacts.store import DirectoryStore
from npuops.build.options import BuildOptions
from npuops.cli.main import main
from npuops.errors import OptionError, StorageError
from npuops.events import Warned
from npuops.models.preprocessing import ImagePreprocessing
from npuops.models.steps import CenterCrop, DecodeImage, Normalize, Pipeline, Resize, Softmax, TopK, ToTensor
from npuops.targets.protocol import Precision
from npuops.testing import EventLog
from onnx_models import save

COLOURS = {"red": (250, 10, 20), "green": (10, 250, 20), "blue": (10, 20, 250)}
SIGNED = ("--image", "mean=0.5", "--image", "std=0.5")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NPUOPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """image[1,3,8,8] → Conv → mean over the picture → y[1,3]: which colour is strongest."""
    weight = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], name="conv"),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["y"], name="flatten"),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    return save(graph, tmp_path / "colours.onnx")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder for each class, called by its name, in another order than the model's."""
    image = pytest.importorskip("PIL.Image", reason="images need the extra `images`")
    for name, colour in COLOURS.items():
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        for shade in range(4):
            image.new("RGB", (12, 10), tuple(abs(part - 9 * shade) for part in colour)).save(folder / f"{shade}.png")
    (tmp_path / "names.txt").write_text("\n".join(COLOURS))
    return tmp_path / "pictures"


def words(model: Path, pictures: Path, **changes: object) -> app.BuildWords:
    values: dict[str, object] = {"model": str(model), "target": "ort-cpu", "calibration": str(pictures), **changes}
    return app.BuildWords(**values)  # type: ignore[arg-type]


A8W8 = BuildOptions(precision=Precision.A8W8)


def test_run_treats_pixels_as_the_build_did(model: Path, pictures: Path, tmp_path: Path) -> None:
    art, names = tmp_path / "art.npuart", tmp_path / "names.txt"
    data = ("-c", pictures, "-e", pictures, "--labels", names, *SIGNED, "--precision", "a8w8")
    built = json.loads(npuops("build", model, "-t", "ort-cpu", *data, "-o", art, "--json"))
    assert built["image"]["mean"] == [0.5]
    assert built["accuracy"]["artifact"] == 1.0  # the folders' names are the classes, in the model's order
    manifest = open_artifact(art).manifest
    assert manifest.image == ImagePreprocessing(mean=(0.5,), std=(0.5,))
    for name in COLOURS:
        answer = json.loads(npuops("run", art, "-i", pictures / name / "1.png", "--json"))
        assert answer["top_k"][0]["label"] == name
    assert answer["top_k"][0]["score"] > answer["top_k"][1]["score"] + 1  # of -1..1, not of 0..1
    refused = npuops("run", art, "-i", pictures / "red" / "1.png", "--image", "mean=0", code=2)
    assert "contradicts" in refused
    profiled = npuops("profile", art, "-i", pictures / "red" / "1.png", "--image", "std=0.5,0.5,0.5")
    assert "by type" in profiled
    assert npuops("verify", art).count("ok: 2 files") == 1
    assert "pass" in npuops("gate", art)
    assert "colours.onnx" in npuops("compare", art, art)


def test_other_preprocessing_is_another_build(model: Path, pictures: Path, tmp_path: Path) -> None:
    first = app.run_build(words(model, pictures), A8W8, tmp_path / "one")
    same = app.run_build(words(model, pictures), A8W8, tmp_path / "two")
    other = app.run_build(words(model, pictures, image=ImagePreprocessing(channels="bgr")), A8W8, tmp_path / "three")
    assert (first.cached, same.cached, other.cached) == (False, True, False)
    assert first.artifact.manifest.image == ImagePreprocessing()


def test_folders_that_name_no_class_are_said_to_mean_nothing(model: Path, pictures: Path, tmp_path: Path) -> None:
    log = EventLog()
    manifest = app.run_build(words(model, pictures), A8W8, tmp_path / "art", observe=log).artifact.manifest
    assert manifest.accuracy is None
    assert any("blue, green, red" in event.message for event in log.of(Warned))


def test_a_demanded_signature_does_not_hold_up_the_build(model: Path, pictures: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[signature]\nrequired = true\ntrusted_keys = ["a.pub"]\n')
    log = EventLog()
    found = app.run_build(words(model, pictures, policy=policy), A8W8, tmp_path / "art", observe=log)
    assert found.artifact.manifest.gate is not None
    assert found.artifact.manifest.gate.verdict == "pass"
    assert any("npuops sign" in event.advice for event in log.of(Warned))


def test_the_cache_is_brought_back_to_its_limit(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPUOPS_CACHE_LIMIT", "1KiB")
    app.run_build(words(model, pictures), A8W8, tmp_path / "art")
    assert sum(entry.bytes for entry in DirectoryStore().list()) <= 1024
    monkeypatch.setenv("NPUOPS_CACHE_LIMIT", "some")
    with pytest.raises(OptionError, match="NPUOPS_CACHE_LIMIT"):
        app.run_build(words(model, pictures), A8W8, tmp_path / "other")


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPUOPS_CACHE", str(model / "below-a-file"))
    with pytest.raises(StorageError) as caught:
        app.run_build(words(model, pictures), A8W8, tmp_path / "art")
    assert "--no-cache" in caught.value.advice
    assert not (tmp_path / "art").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("-c", "nowhere"), "nowhere does not exist"),
        (("-c", "empty"), "neither .npy files nor images"),
        (("-c", "torn"), "torn/a.png is no readable image"),
        (("--shape", "image=1x3x8"), "image"),
        (("--shape", "image=1x-3"), "NAME=SIZES"),
        (("--set", "nonsense"), "K=V"),
        (("--image", "mean=1,2"), "three channels"),
        (("--metric", "nonsense"), "no metric"),
        (("-o", "empty"), "exists and is no artifact"),
        (("-o", "mine.npuart"), "exists and is no artifact"),
        (("--labels", "nowhere"), "cannot read the labels"),
        (("--time-limit", "nan"), "--time-limit"),
        (("--time-limit", "inf"), "--time-limit"),
        (("-o", "seen"), "seen.report.html is no regular file"),
    ],
)
def test_a_slip_is_named_and_nothing_is_written(
    model: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: tuple[str, str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "torn", "seen.report.html"):
        (tmp_path / folder).mkdir()
    (tmp_path / "torn" / "a.png").write_bytes(b"no picture")
    (tmp_path / "torn" / "readme.txt").write_text("not looked at")
    (tmp_path / "mine.npuart").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    words = ["build", str(model), "-t", "ort-cpu", "-c", str(pictures), "-o", "art", "--no-cache", *changes]
    monkeypatch.setattr(sys, "argv", ["npuops", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("name", "code", "said"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "")])
def test_a_signal_ends_the_build_and_leaves_nothing(
    model: Path, pictures: Path, tmp_path: Path, name: str, code: int, said: str
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    # The interrupt comes from inside, at a step of the build, so that no clock decides what is tested.
    script = (
        "import os, signal, sys\nfrom npuops import events\nfrom npuops.build import pipeline\n"
        "real = pipeline.compile_model\n"
        f"def interrupted(*a, **k):\n    os.kill(os.getpid(), signal.{name})\n    return real(*a, **k)\n"
        "pipeline.compile_model = interrupted\n"
        f"sys.argv = ['npuops', 'build', {str(model)!r}, '-t', 'ort-cpu', '-c', {str(pictures)!r},"
        f" '-o', {str(tmp_path / 'art')!r}]\nfrom npuops.cli.main import main\nmain()\n"
    )
    environment = {**os.environ, "TMPDIR": str(scratch)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert not (tmp_path / "art").exists()
    assert [path for path in scratch.iterdir() if path.name.startswith("npuops-")] == []


@pytest.mark.slow
def test_a_photo_of_a_cat_is_a_cat_after_calibration_on_photos(
    mobilenet: Path, shared_models: Path, tmp_path: Path
) -> None:
    photos, art = shared_models / "inputs" / "photos", tmp_path / "art"
    labels = ("--labels", shared_models / "inputs" / "imagenet_labels.txt")
    npuops("build", mobilenet, "-t", "ort-cpu", "-c", photos, *SIGNED, *labels, "--precision", "a8w8", "-o", art)
    for photo, label in (("cat_720p.jpg", "cat"), ("parrot.jpg", "macaw")):
        answer = json.loads(npuops("run", art, "-i", photos / photo, "--json"))
        assert label in answer["top_k"][0]["label"]


@pytest.mark.slow
def test_an_integer_tflite_model_builds_and_keeps_its_answers(shared_models: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "eval.npz", input_1=rng.normal(0, 20, size=(8, 1, 49, 10, 1)).astype(np.float32))
    model = shared_models / "tiny" / "kws_dscnn_int8.tflite"
    words = npuops("build", model, "-t", "ethos-u:ethos-u85-256", "-e", tmp_path / "eval.npz", "-o", tmp_path / "art")
    assert "pass" in words
    manifest = open_artifact(tmp_path / "art").manifest
    assert manifest.model.format == "tflite"
    assert manifest.quantization is None


def test_an_accuracy_that_no_mix_keeps_is_a_no_that_names_the_worst_layers(tmp_path: Path) -> None:
    out = tmp_path / "x.npuops"
    wish = ("--metric", "cosine", "--max-drop", "0")
    plan = ("zoo:digits-transformer", "--target", "ort-cpu", "--precision", "mixed")
    words = npuops("build", *plan, *wish, "-o", out, code=1)
    assert "no mix of 8 and 16 bits keeps cosine within 0" in words
    assert "the layers that suffer most at 8 bits: /" in words
    assert not out.exists()


def test_an_artifact_of_any_batch_is_built_run_profiled_and_verified_like_every_other(tmp_path: Path) -> None:
    art = tmp_path / "any"
    npuops("build", "zoo:digits-cnn", "-t", "ort-cpu", "--precision", "fp32", "--dynamic-batch", "-o", art)
    assert open_artifact(art).manifest.inputs[0].shape == ("batch", 1, 8, 8)
    np.savez(tmp_path / "three.npz", image=np.zeros((3, 1, 8, 8), np.float32))
    answer = json.loads(npuops("run", art, "-i", tmp_path / "three.npz", "--json"))
    assert answer["outputs"]["logits"]["shape"] == [3, 10]
    assert "slowest" in npuops("profile", art)
    assert "runs here" in npuops("verify", art)
    assert "batch×1×8×8" in npuops("compare", art, art)


def test_a_pipeline_from_pictures_to_labels_is_part_of_the_manifest_and_its_digest(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    art, names = tmp_path / "art", tmp_path / "names.txt"
    data = ("-c", pictures, "--labels", names, "--precision", "a8w8", *SIGNED)
    npuops("build", model, "-t", "ort-cpu", *data, "--pipeline", "image-classification", "-o", art)
    manifest = open_artifact(art).manifest
    assert manifest.pipeline == Pipeline(
        input="image",
        preprocess=(
            DecodeImage(),
            Resize(height=8, width=8),
            CenterCrop(height=8, width=8),
            Normalize(mean=(0.5,), std=(0.5,)),
            ToTensor(layout="nchw"),
        ),
        postprocess=(Softmax(tensor="y"), TopK(tensor="y", k=3)),
    )
    npuops("build", model, "-t", "ort-cpu", *data, "-o", tmp_path / "plain")
    assert open_artifact(tmp_path / "plain").manifest.pipeline is None
    assert b'"pipeline"' not in (tmp_path / "plain" / "manifest.json").read_bytes()
    assert "did you mean 'image-classification'?" in npuops(
        "build", model, "-t", "ort-cpu", *data, "--pipeline", "image-classifier", "-o", tmp_path / "slip", code=2
    )
