from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from npuops.errors import IncompatibleArtifactError
from npuops.models.tflite_file import read_tflite
from npuops.targets.tflite_writer import TfliteBuilder, with_fixed_shapes

pytest.importorskip("ai_edge_litert", reason="extra ethos-u is not installed")


def small() -> bytes:
    builder = TfliteBuilder()
    x = builder.activation("x", (1, 4), 0.5, 3)
    constant = builder.constant("c", np.array([[1, 2, 3, 4]], np.int8), np.array([0.25]), np.array([-1]))
    y = builder.activation("y", (1, 4), 0.75, -7)
    builder.op("ADD", [x, constant], [y], "AddOptions", fusedActivationFunction=1)
    return builder.build([x], [y])


def test_what_was_written_reads_back(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(small())
    graph = read_tflite(tmp_path / "m.tflite")
    assert [op.op for op in graph.operators] == ["ADD"]
    assert [(t.name, t.dtype, t.shape) for t in graph.tensors] == [
        ("x", "int8", (1, 4)),
        ("c", "int8", (1, 4)),
        ("y", "int8", (1, 4)),
    ]
    scales = graph.tensors[2].scales
    assert scales is not None
    assert (scales.scale, scales.zero_point) == ((0.75,), (-7,))
    assert np.array_equal(graph.constant(1), [[1, 2, 3, 4]])


def test_same_calls_give_the_same_bytes() -> None:
    assert small() == small()


def test_equal_constants_are_written_once_and_scalars_stay_scalars() -> None:
    builder = TfliteBuilder()
    first = builder.constant("a", np.array([1, 2], np.int32))
    assert builder.constant("b", np.array([1, 2], np.int32)) == first
    assert builder.constant("b", np.array([[1, 2]], np.int32)) != first
    assert builder.specs[builder.constant("s", np.array(3, np.int8))].shape == ()


def test_unknown_option_fields_are_refused() -> None:
    builder = TfliteBuilder()
    x = builder.activation("x", (1,), 1.0, 0)
    with pytest.raises(ValueError, match="no field stride"):
        builder.op("CONV_2D", [x], [x], "Conv2DOptions", stride=1)


def test_models_without_signatures_pass_unchanged_and_scraps_are_refused() -> None:
    assert with_fixed_shapes(small()) == small()
    with pytest.raises(IncompatibleArtifactError):
        with_fixed_shapes(small()[:60])


def test_dynamic_batch_of_a_keras_model_is_fixed(shared_models: Path, tmp_path: Path) -> None:
    source = (shared_models / "tiny" / "ic_resnet8_int8.tflite").read_bytes()
    fixed = with_fixed_shapes(source)
    assert fixed != source
    assert with_fixed_shapes(fixed) == fixed
    (tmp_path / "m.tflite").write_bytes(fixed)
    graph = read_tflite(tmp_path / "m.tflite")
    assert graph.tensors[graph.inputs[0]].shape == (1, 32, 32, 3)
