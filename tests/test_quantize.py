from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from npuops.errors import DataError, MalformedModelError, OptionError, StorageError, UnsupportedModelError
from npuops.evaluate.metrics import cosine, top1_agreement
from npuops.evaluate.reference import run_reference
from npuops.evaluate.sample_sources import fitted_samples
from npuops.evaluate.samples import Samples
from npuops.events import Event, StepProgressed, Warned
from npuops.models.model import TensorInfo
from npuops.quantize.quantize import QuantizeOptions, quantize
from npuops.quantize.ranges import Method
from npuops.targets.protocol import Precision
from small_graphs import BLOCK_INPUT, CNN_INPUT, noise, outlier_block, small_cnn, weight, written

A16 = Precision.A16W8


@pytest.mark.parametrize("method", list(Method))
def test_every_method_keeps_a_cnn_close_to_float(tmp_path: Path, method: Method) -> None:
    model, held_out = small_cnn(tmp_path / "f.onnx"), noise(CNN_INPUT, 16, 1)
    done = quantize(model, noise(CNN_INPUT, 16, 0), QuantizeOptions(method=method), tmp_path / "q.onnx")
    near = cosine(run_reference(done.path, held_out)["y"], run_reference(model, held_out)["y"])
    assert near is not None
    assert near > 0.99
    assert done.record.method == method.value
    assert done.record.activations == "uint8"


def test_weights_are_int8_per_channel_and_biases_int32(tmp_path: Path) -> None:
    done = quantize(small_cnn(tmp_path / "f.onnx"), noise(CNN_INPUT, 8, 0), QuantizeOptions(), tmp_path / "q.onnx")
    onnx.checker.check_model(onnx.load(done.path))
    kinds = {t.name: t for t in onnx.load(done.path).graph.initializer}
    assert kinds["w2_quantized"].data_type == onnx.TensorProto.INT8
    assert list(kinds["w2_scale"].dims) == [5]
    assert any(t.data_type == onnx.TensorProto.INT32 for t in kinds.values())


def test_16_bits_cure_what_8_bits_break_and_one_tensor_can_be_chosen(tmp_path: Path) -> None:
    model, held_out = outlier_block(tmp_path / "f.onnx"), noise(BLOCK_INPUT, 16, 1)
    wanted = run_reference(model, held_out)["y"]
    found = []
    for options in (
        QuantizeOptions(),
        QuantizeOptions(tensors_16bit=("narrow", "sum", "normed")),
        QuantizeOptions(precision=A16),
    ):
        done = quantize(model, noise(BLOCK_INPUT, 16, 0), options, tmp_path / "q.onnx")
        found.append((cosine(run_reference(done.path, held_out)["y"], wanted) or 0.0, done.record))
    (narrow, _), (some, record), (wide, _) = found
    assert narrow < 0.95 < some < wide
    assert record.activations == "mixed"
    assert record.tensors_16bit == ("narrow", "sum", "normed")


def test_layernorm_gamma_is_per_tensor_uint8_when_the_target_wants_it(tmp_path: Path) -> None:
    options = QuantizeOptions(layernorm_gamma_uint8=True)
    done = quantize(outlier_block(tmp_path / "f.onnx"), noise(BLOCK_INPUT, 8, 0), options, tmp_path / "q.onnx")
    kinds = {t.name: t for t in onnx.load(done.path).graph.initializer}
    assert kinds["gamma_quantized"].data_type == onnx.TensorProto.UINT8
    assert list(kinds["gamma_scale"].dims) == []


@pytest.mark.parametrize("unsigned", [False, True])
def test_a_layernorm_over_several_axes_has_one_scale_for_its_gamma(tmp_path: Path, unsigned: bool) -> None:
    text = "(float[4,32] x) => (float[4,32] y) { y = LayerNormalization <axis = 0> (x, gamma, beta) }"
    model = written(tmp_path / "f.onnx", text, gamma=weight(4, 32), beta=weight(4, 32, seed=1))
    options = QuantizeOptions(layernorm_gamma_uint8=unsigned)
    done = quantize(model, noise(BLOCK_INPUT, 8, 0), options, tmp_path / "q.onnx")
    kinds = {tensor.name: tensor for tensor in onnx.load(done.path).graph.initializer}
    assert list(kinds["gamma_scale"].dims) == []
    held_out = noise(BLOCK_INPUT, 8, 1)
    assert cosine(run_reference(done.path, held_out)["y"], run_reference(model, held_out)["y"]) > 0.99  # type: ignore[operator]


def test_softmax_output_is_1_256_when_the_target_wants_it(tmp_path: Path) -> None:
    options = QuantizeOptions(softmax_output_fixed=True)
    done = quantize(small_cnn(tmp_path / "f.onnx"), noise(CNN_INPUT, 8, 0), options, tmp_path / "q.onnx")
    scale = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(done.path).graph.initializer}["y_scale"]
    assert scale == np.float32(1 / 256)


def test_the_same_inputs_give_the_same_bytes_whatever_the_hash_seed(tmp_path: Path) -> None:
    model = outlier_block(tmp_path / "f.onnx")
    code = (
        "import sys; sys.path.insert(0, sys.argv[3]); from pathlib import Path; from small_graphs import *\n"
        "from npuops.quantize.quantize import *\n"
        "options = QuantizeOptions(tensors_16bit=('sum',))\n"
        "quantize(Path(sys.argv[1]), noise(BLOCK_INPUT, 8, 0), options, Path(sys.argv[2]))"
    )
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", code, str(model), str(tmp_path / f"{seed}.onnx"), str(Path(__file__).parent)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        )
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()


def test_progress_and_a_poor_calibration_set_are_reported(tmp_path: Path) -> None:
    events: list[Event] = []
    quantize(
        small_cnn(tmp_path / "f.onnx"),
        noise(CNN_INPUT, 3, 0),
        QuantizeOptions(method=Method.MSE),
        tmp_path / "q.onnx",
        observe=events.append,
    )
    steps = [event for event in events if isinstance(event, StepProgressed)]
    assert (steps[-1].done, steps[-1].total) == (6, 6)
    assert any(isinstance(event, Warned) and "only 3" in event.message for event in events)


def test_quantizing_twice_is_refused_with_advice(tmp_path: Path) -> None:
    calibration = noise(CNN_INPUT, 8, 0)
    done = quantize(small_cnn(tmp_path / "f.onnx"), calibration, QuantizeOptions(), tmp_path / "q.onnx")
    with pytest.raises(UnsupportedModelError, match="already") as caught:
        quantize(done.path, calibration, QuantizeOptions(), tmp_path / "qq.onnx")
    assert "float model" in caught.value.advice
    assert not (tmp_path / "qq.onnx").exists()


def test_bad_input_is_a_clear_error_and_leaves_no_file(tmp_path: Path) -> None:
    model, good = small_cnn(tmp_path / "f.onnx"), noise(CNN_INPUT, 8, 0)
    out = tmp_path / "q.onnx"
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:700])
    with pytest.raises(MalformedModelError):
        quantize(tmp_path / "cut.onnx", good, QuantizeOptions(), out)
    with pytest.raises(MalformedModelError):
        quantize(tmp_path / "absent.onnx", good, QuantizeOptions(), out)
    with pytest.raises(DataError, match="no calibration sample"):
        quantize(model, Samples(inputs=(), source="nothing", digest=""), QuantizeOptions(), out)
    with pytest.raises(OptionError, match="no activation"):
        quantize(model, good, QuantizeOptions(tensors_16bit=("r2",)), out)
    with pytest.raises(StorageError):
        quantize(model, good, QuantizeOptions(), tmp_path / "no" / "such" / "folder.onnx")
    with pytest.raises(StorageError):
        quantize(model, good, QuantizeOptions(), model / "in_a_file.onnx")
    with pytest.raises(OptionError):
        QuantizeOptions(precision=Precision.FP16)
    assert not out.exists()


def test_a_branch_reads_what_came_out_of_a_relu_not_what_went_in(tmp_path: Path) -> None:
    text = """(float[4,32] x, bool choose) => (float[4,32] y) {
        a = MatMul (x, w)  r = Relu (a)
        y = If (choose) <then_branch = t () => (float[4,32] p) { p = Add (r, x) },
                         else_branch = e () => (float[4,32] q) { q = Neg (r) }> }"""
    model, samples = written(tmp_path / "f.onnx", text, w=weight(32, 32)), noise(BLOCK_INPUT, 8, 0)
    for row in samples.inputs:
        row["choose"] = np.array(True)
    done = quantize(model, samples, QuantizeOptions(), tmp_path / "q.onnx")
    onnx.checker.check_model(done.path)  # the nodes are in order for the branches too
    near = cosine(run_reference(done.path, samples)["y"], run_reference(model, samples)["y"])
    assert near is not None
    assert near > 0.99


def _crops(shared: Path, count: int, seed: int) -> Samples:
    from PIL import Image  # noqa: PLC0415 - only this test reads photos

    generator = np.random.default_rng(seed)
    photos = []
    for file in sorted((shared / "inputs" / "photos").iterdir()):
        with Image.open(file) as opened:
            photos.append(opened.convert("RGB"))
    rows = []
    for index in range(count):
        photo = photos[index % len(photos)]
        size = int(min(photo.size) * generator.uniform(0.5, 1))
        left, top = generator.integers(0, photo.width - size + 1), generator.integers(0, photo.height - size + 1)
        crop = np.asarray(photo.crop((left, top, left + size, top + size)).resize((224, 224)))
        rows.append({"x": (crop.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)})
    info = TensorInfo(name="x", dtype="float32", shape=(1, 3, 224, 224))
    return fitted_samples(rows, (info,), source=f"random crops, seed {seed}")


@pytest.mark.slow
def test_mobilenet_at_8_bits_agrees_with_float_on_98_percent_of_held_out_crops(
    tmp_path: Path, mobilenet: Path, shared_models: Path
) -> None:
    done = quantize(mobilenet, _crops(shared_models, 48, 1), QuantizeOptions(), tmp_path / "q.onnx")
    held_out = _crops(shared_models, 120, 2)
    wanted = next(iter(run_reference(mobilenet, held_out).values()))
    agreement = top1_agreement(next(iter(run_reference(done.path, held_out).values())), wanted)
    assert agreement is not None
    assert agreement >= 0.98
