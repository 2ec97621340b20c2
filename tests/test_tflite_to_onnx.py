"""The importer against LiteRT's reference kernels, operator by operator and on every shared model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from npuops.errors import UnsupportedModelError
from npuops.models.open import as_onnx, open_model
from npuops.models.tflite_file import read_tflite
from npuops.models.tflite_graph import TfliteGraph, TfliteOp, TfliteTensor
from npuops.models.tflite_shapes import with_shapes
from npuops.models.tflite_to_onnx import import_tflite
from tflite_cases import FLOAT_CASES, QUANTIZED_CASES
from tflite_maker import schema, write_tflite

litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs npuops[ethos-u]")

Pair = tuple[Any, Any, Mapping[str, Any]]
RNG = np.random.default_rng(7)


def both(
    path: Path, feed: list[Any], folder: Path, *, kernels: str = "BUILTIN_REF", logits: bool = False
) -> list[Pair]:
    """Outputs of LiteRT and of ONNX Runtime on the imported graph, with LiteRT's words about them.

    With `logits`, also the tensor that the Softmax reads.
    """
    lite = litert.Interpreter(
        str(path),
        experimental_op_resolver_type=getattr(litert.OpResolverType, kernels),
        num_threads=1,
        experimental_preserve_all_tensors=logits,
    )
    lite.allocate_tensors()
    session = ort.InferenceSession(
        str(imported(path, folder, logits=logits)), options(), providers=["CPUExecutionProvider"]
    )
    floats = {}
    for words, slot, values in zip(lite.get_input_details(), session.get_inputs(), feed, strict=True):
        lite.set_tensor(words["index"], values)
        scale, zero = words["quantization"]
        quantized = words["dtype"] in (np.int8, np.uint8)
        floats[slot.name] = ((values.astype(np.float32) - zero) * np.float32(scale)) if quantized else values
    lite.invoke()
    theirs = list(lite.get_output_details())
    if logits:
        softmax = next(op for op in read_tflite(path).operators if op.op == "SOFTMAX")
        theirs += [words for words in lite.get_tensor_details() if words["index"] == softmax.inputs[0]]
    found = session.run(None, floats)
    return [(lite.get_tensor(words["index"]), mine, words) for words, mine in zip(theirs, found, strict=True)]


def options() -> Any:
    made = ort.SessionOptions()
    made.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    made.intra_op_num_threads = 1
    return made


def imported(path: Path, folder: Path, *, logits: bool) -> Path:
    out = as_onnx(path, folder / "imported.onnx")
    if logits:
        proto = onnx.load(out)
        softmax = next(node for node in proto.graph.node if node.op_type == "Softmax")
        proto.graph.output.extend(value for value in proto.graph.value_info if value.name == softmax.input[0])
        onnx.save(proto, out)
    return out


def draw(shape: Any, dtype: Any) -> Any:
    if np.dtype(dtype).kind in "iu" and np.dtype(dtype).itemsize == 1:
        limits = np.iinfo(dtype)
        return RNG.integers(limits.min, limits.max + 1, shape).astype(dtype)
    if np.dtype(dtype).kind == "i":
        return RNG.integers(0, 3, shape).astype(dtype)
    return (RNG.random(shape) + 0.1).astype(dtype)


def levels(theirs: Any, mine: Any, words: Mapping[str, Any]) -> Any:
    scale, zero = words["quantization"]
    limits = np.iinfo(theirs.dtype)
    stored = np.clip(np.rint(mine / scale + zero), limits.min, limits.max)
    return np.abs(stored - theirs.astype(np.float64))


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOAT_CASES)
def test_a_float_operator_computes_what_litert_computes(name: str, tmp_path: Path) -> None:
    op, inputs, outputs, *rest = FLOAT_CASES[name]
    path = write_tflite(tmp_path / "one.tflite", op, inputs, outputs, *rest)
    feed = [draw(tensor.shape, tensor.dtype) for tensor in inputs if tensor is not None and tensor.data is None]
    if op not in {"SQRT", "RSQRT", "LOG", "POW", "DIV"}:
        feed = [values * 9 - 4 for values in feed]
    for theirs, mine, _ in both(path, feed, tmp_path):
        assert theirs.shape == mine.shape
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTIZED_CASES)
def test_a_quantized_operator_is_within_one_level_of_litert(name: str, tmp_path: Path) -> None:
    op, inputs, outputs, *rest = QUANTIZED_CASES[name]
    path = write_tflite(tmp_path / "one.tflite", op, inputs, outputs, *rest)
    feed = [draw(tensor.shape, tensor.dtype) for tensor in inputs if tensor.data is None]
    for theirs, mine, words in both(path, feed, tmp_path):
        assert len(np.unique(theirs)) > 3
        if theirs.dtype == np.float32:
            np.testing.assert_allclose(mine, theirs, atol=1e-6)
        else:
            assert levels(theirs, mine, words).max() <= 1


FLOAT_MODELS = (
    "vision/mobilenet_v1_0.25_224_fp32.tflite",
    "tiny/ic_resnet8_fp32.tflite",
    "tiny/vww_mobilenet_v1_96_fp32.tflite",
    "tiny/ad_autoencoder_fp32.tflite",
    "audio/kwt1_transformer_fp32.tflite",
)
QUANTIZED_MODELS = {
    "vision/mobilenet_v1_0.25_224_uint8.tflite": 3,
    "vision/mobilenet_v1_0.25_128_uint8.tflite": 2,
    "vision/mobilenet_v2_1.0_224_int8.tflite": 5,
    "vision/mobilenet_edgetpu_224_uint8.tflite": 5,
    "tiny/ic_resnet8_int8.tflite": 5,
    "tiny/vww_mobilenet_v1_96_int8.tflite": 2,
    "tiny/kws_dscnn_int8.tflite": 1,
    "tiny/sww_1dcnn_int8.tflite": 1,
}
"""Greatest difference in levels of the logits that was measured on the inputs below: a single operator is within one
level (see above), and roundings accumulate over 9 to 60 layers.

At the output it can be more: a softmax turns one level of the logits into up to `scale * 256 / 4` of its own.
"""


def real_input(words: Mapping[str, Any], inputs: Path) -> Any:
    """A photo, a spoken word or a machine's sound from the shared inputs, in the model's own number format."""
    shape, dtype = tuple(words["shape"]), words["dtype"]
    if len(shape) == 4 and shape[-1] == 3:
        image = pytest.importorskip("PIL.Image", reason="needs npuops[images]")
        with image.open(inputs / "resized_cat_224.bmp") as photo:
            pixels = np.asarray(photo.convert("RGB").resize((shape[2], shape[1])), np.int16)[None]
        # Every quantized image model here stores the pixel itself.
        return pixels.astype(dtype) if dtype == np.uint8 else _signed(pixels, dtype)
    if shape == (1, 640):
        sound = np.frombuffer((inputs / "ad_normal_id_01.bin").read_bytes(), "<f4")[:640].reshape(shape)
    else:
        raw = np.frombuffer((inputs / "yes_1000ms.wav").read_bytes()[44:32044], "<i2").astype(np.float32)
        sound = np.resize(raw / np.abs(raw).max(), shape)
    if dtype == np.float32:
        return np.ascontiguousarray(sound)
    scale, zero = words["quantization"]
    return np.clip(np.rint(sound / scale + zero), -128, 127).astype(dtype)


def _signed(pixels: Any, dtype: Any) -> Any:
    return (pixels - 128).astype(dtype) if dtype == np.int8 else (pixels / 127.5 - 1).astype(dtype)


def details(path: Path) -> list[Mapping[str, Any]]:
    return list(litert.Interpreter(str(path)).get_input_details())


@pytest.mark.parametrize("name", FLOAT_MODELS)
def test_a_float_model_answers_like_litert_on_real_inputs(name: str, shared_models: Path, tmp_path: Path) -> None:
    path = shared_models / name
    feed = [real_input(words, shared_models / "inputs") for words in details(path)]
    for theirs, mine, _ in both(path, feed, tmp_path):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bound"), QUANTIZED_MODELS.items())
def test_a_quantized_model_answers_like_litert_on_real_inputs(
    name: str, bound: int, shared_models: Path, tmp_path: Path
) -> None:
    path = shared_models / name
    feed = [real_input(words, shared_models / "inputs") for words in details(path)]
    (theirs, mine, _), (their_logits, my_logits, words) = both(path, feed, tmp_path, logits=True)
    my_logits = np.moveaxis(my_logits, 1, -1) if my_logits.ndim == 4 else my_logits
    assert levels(their_logits, my_logits.reshape(their_logits.shape), words).max() <= bound
    assert int(np.argmax(theirs)) == int(np.argmax(mine))


def test_the_quantized_autoencoder_equals_litert(shared_models: Path, tmp_path: Path) -> None:
    path = shared_models / "tiny/ad_autoencoder_int8.tflite"
    ((theirs, mine, words),) = both(path, [real_input(details(path)[0], shared_models / "inputs")], tmp_path)
    assert levels(theirs, mine, words).max() <= 1


@pytest.mark.slow
def test_deeplab_finds_the_same_classes_as_litert(shared_models: Path, tmp_path: Path) -> None:
    path = shared_models / "vision/deeplabv3_mnv2_dm05_513_uint8.tflite"
    feed = [real_input(words, shared_models / "inputs") for words in details(path)]
    ((theirs, mine, _),) = both(path, feed, tmp_path)
    assert theirs.dtype == mine.dtype == np.int64
    assert (theirs == mine).mean() > 0.98  # 0.989 was measured: equal scores after 55 layers of roundings


@pytest.mark.slow
def test_edsr_int8_paints_the_same_picture_as_litert(shared_models: Path, tmp_path: Path) -> None:
    path = shared_models / "vision/edsr_f32b5_int8.tflite"
    feed = [real_input(words, shared_models / "inputs") for words in details(path)]
    # The reference kernels have no DEPTH_TO_SPACE of this version.
    ((theirs, mine, words),) = both(path, feed, tmp_path, kernels="BUILTIN_WITHOUT_DEFAULT_DELEGATES")
    apart = levels(theirs, mine, words)
    assert apart.max() <= 5
    assert apart.mean() <= 0.6


@pytest.mark.parametrize("name", ["audio/dtln_1_dynq.tflite", "audio/dtln_2_dynq.tflite", "tiny/kws_dscnn_fp32.tflite"])
def test_weights_in_8_bits_under_float_stay_near_litert(name: str, shared_models: Path, tmp_path: Path) -> None:
    """LiteRT quantizes the activations of such models on the fly, the import does not: 5.4 % was measured."""
    path = shared_models / name
    feed = [real_input(words, shared_models / "inputs") for words in details(path)]
    for theirs, mine, _ in both(path, feed, tmp_path):
        assert np.abs(theirs - mine).max() <= 0.07 * max(np.abs(theirs).max(), 1.0)


@pytest.mark.parametrize(
    ("name", "culprit"),
    [
        ("vision/ssd_mobilenet_v1_300_uint8.tflite", "CUSTOM:TFLite_Detection_PostProcess"),
        ("tiny/lstm_mnist_int8.tflite", "UNIDIRECTIONAL_SEQUENCE_LSTM"),
        ("tiny/person_detect_vela.tflite", "CUSTOM:ethos-u"),
    ],
)
def test_what_cannot_be_imported_is_named(name: str, culprit: str, shared_models: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=culprit) as caught:
        as_onnx(shared_models / name, tmp_path / "out.onnx")
    assert caught.value.advice
    assert not (tmp_path / "out.onnx").exists()


def test_person_detection_answers_like_litert_on_photos(shared_models: Path, tmp_path: Path) -> None:
    """LiteRT 2.3 refuses the file for its old bias axes, which a copy has put right; the import takes the original."""
    image = pytest.importorskip("PIL.Image", reason="needs npuops[images]")
    path = shared_models / "tiny/person_detect_int8.tflite"
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    for tensor in model.subgraphs[0].tensors:
        if len(tensor.shape) == 1 and tensor.quantization is not None:
            tensor.quantization.quantizedDimension = 0
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    copy = tmp_path / "copy.tflite"
    copy.write_bytes(bytes(builder.Output()))
    assert (as_onnx(path, tmp_path / "a.onnx")).read_bytes() == as_onnx(copy, tmp_path / "b.onnx").read_bytes()
    for name in ("person_96.bmp", "no_person_96.bmp"):
        with image.open(shared_models / "inputs" / name) as photo:
            pixels = _signed(np.asarray(photo.convert("L"), np.int16).reshape(1, 96, 96, 1), np.int8)
        ((theirs, mine, words),) = both(copy, [pixels], tmp_path)
        assert levels(theirs, mine, words).max() <= 2


def test_a_convolutional_net_has_one_transpose_at_its_input(shared_models: Path, tmp_path: Path) -> None:
    out = as_onnx(shared_models / "vision/mobilenet_v2_1.0_224_int8.tflite", tmp_path / "out.onnx")
    ops = open_model(out).op_histogram
    assert ops["Transpose"] == 1
    assert "Clip" not in ops


def test_the_import_costs_what_the_original_costs(shared_models: Path, tmp_path: Path) -> None:
    path = shared_models / "tiny/ic_resnet8_int8.tflite"
    original, imported = open_model(path), open_model(as_onnx(path, tmp_path / "out.onnx"))
    assert imported.macs == original.macs
    assert imported.peak_activation_bytes == original.peak_activation_bytes
    assert [tensor.name for tensor in imported.outputs] == [tensor.name for tensor in original.outputs]


def test_a_shape_that_is_computed_from_a_scalar_size_is_imported() -> None:
    """As Keras flattens a batch of open size: Shape, its first number, packed with the rest."""

    def made(dtype: str, *shape: int, data: Any = None) -> TfliteTensor:
        stored = None if data is None else memoryview(np.asarray(data, dtype).tobytes())
        return TfliteTensor(name="", dtype=dtype, shape=shape, data=stored)

    def op(name: str, inputs: tuple[int, ...], output: int, **options: int) -> TfliteOp:
        return TfliteOp(op=name, inputs=inputs, outputs=(output,), options=options)

    number = made("int32", 1, data=[0]), made("int32", 1, data=[1]), made("int32", data=12)
    tensors = (
        made("float32", 2, 3, 4),
        made("int32", 3),
        *number,
        made("int32"),
        made("int32", 2),
        made("float32", 2, 12),
    )
    graph = TfliteGraph(
        tensors=tuple(replace(tensor, name=f"t{index}") for index, tensor in enumerate(tensors)),
        operators=(
            op("SHAPE", (0,), 1),
            op("STRIDED_SLICE", (1, 2, 3, 3), 5, shrink_axis_mask=1),
            op("PACK", (5, 4), 6, axis=0),
            op("RESHAPE", (0, 6), 7),
        ),
        inputs=(0,),
        outputs=(7,),
        description="",
        version=3,
        subgraph_count=1,
    )
    shaped = with_shapes(graph, {})
    assert shaped.tensors[5].shape == ()
    values = RNG.random((2, 3, 4), np.float32)
    session = ort.InferenceSession(import_tflite(shaped).SerializeToString(), options())
    (got,) = session.run(None, {session.get_inputs()[0].name: values})
    np.testing.assert_array_equal(got, values.reshape(2, 12))
