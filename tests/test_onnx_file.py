"""Writing ONNX files whole or not at all, and loading external data."""

from __future__ import annotations

import re
import resource
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from hostile_models import external, net, relu
from npuops.errors import StorageError, UnsupportedModelError
from npuops.models import onnx_file
from npuops.models.onnx_file import digest_of, read_onnx, write_onnx


def test_nodes_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    model = net(
        helper.make_node("Relu", ["a"], ["y"], name="second"), helper.make_node("Abs", ["x"], ["a"], name="first")
    )
    onnx.save(model, tmp_path / "m.onnx")
    assert [node.name for node in read_onnx(tmp_path / "m.onnx").graph.node] == ["first", "second"]


def test_external_data_is_loaded_from_the_models_folder(tmp_path: Path) -> None:
    values = np.arange(4, dtype=np.float32)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "weights.bin").write_bytes(b"\0" * 12 + values.tobytes())
    (tmp_path / "m.onnx").write_bytes(external("data/weights.bin", offset=12).SerializeToString())
    loaded = read_onnx(tmp_path / "m.onnx")
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), values)
    assert not read_onnx(tmp_path / "m.onnx", weights=False).graph.initializer[0].raw_data


@pytest.mark.parametrize("opset", [7, 24])
def test_both_ends_of_the_opset_range_are_read(opset: int, tmp_path: Path) -> None:
    model = relu()
    model.opset_import[0].version = opset
    onnx.save(model, tmp_path / "m.onnx")
    assert onnx_file.opset_of(read_onnx(tmp_path / "m.onnx")) == opset


def test_an_opset_outside_names_the_range(tmp_path: Path) -> None:
    model = relu()
    model.opset_import[0].version = 6
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedModelError, match="7 to 24"):
        read_onnx(tmp_path / "m.onnx")


def test_a_large_model_is_written_with_its_weights_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "INLINE_BYTES", 1000)
    weight = numpy_helper.from_array(np.arange(1000, dtype=np.float32), "w")
    model = net(helper.make_node("Add", ["x", "w"], ["y"]), weights=(weight,), shape=(1, 1000))
    write_onnx(model, tmp_path / "big.onnx")
    first = sorted(path.name for path in tmp_path.iterdir())
    assert re.fullmatch(r"big\.onnx big\.onnx\.[0-9a-f]{16}\.data", " ".join(first))
    assert (tmp_path / "big.onnx").stat().st_size < 1000
    loaded = read_onnx(tmp_path / "big.onnx")
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), np.arange(1000))
    assert model.graph.initializer[0].raw_data, "the caller's model keeps its weights"
    assert digest_of(tmp_path / "big.onnx").startswith("sha256:")
    model.graph.initializer[0].raw_data = b"\1" * 4000
    write_onnx(model, tmp_path / "big.onnx")
    second = sorted(path.name for path in tmp_path.iterdir())
    assert len(second) == 2
    assert second != first


def test_a_write_that_fails_midway_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write_onnx(relu(), path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(StorageError, match="too large") as caught:
            write_onnx(net(helper.make_node("Abs", ["x"], ["y"])), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.advice
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]
