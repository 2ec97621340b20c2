from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from npuops.errors import DataError, NpuopsError, OptionError
from npuops.evaluate.sample_sources import fitted_samples, load_samples, random_samples
from npuops.models.model import TensorInfo
from npuops.models.preprocessing import ImagePreprocessing

X = (TensorInfo(name="x", dtype="float32", shape=(1, 3)),)
TWO = (TensorInfo(name="ids", dtype="int32", shape=(1, 4)), TensorInfo(name="mask", dtype="float32", shape=(1, 4)))
PICTURE = (TensorInfo(name="image", dtype="float32", shape=(1, 3, 8, 8)),)


def test_npz_takes_float64_without_batch_dimension_and_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.arange(6.0).reshape(2, 3), labels=np.array([1, 0]))
    samples = load_samples(str(tmp_path / "d.npz"), X)
    assert [sample["x"].shape for sample in samples.inputs] == [(1, 3), (1, 3)]
    assert samples.inputs[0]["x"].dtype == np.float32
    assert samples.labels is not None
    assert samples.labels.tolist() == [1, 0]
    assert samples.digest.startswith("sha256:")


def test_a_single_array_of_any_name_feeds_a_single_input_and_limit_cuts(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", np.zeros((5, 1, 3), np.float32))
    assert len(load_samples(str(tmp_path / "d.npz"), X, limit=2)) == 2


def test_digest_follows_the_values() -> None:
    one = fitted_samples([{"x": np.zeros((1, 3), np.float32)}], X, source="a")
    same = fitted_samples([{"x": np.zeros(3)}], X, source="b")
    other = fitted_samples([{"x": np.ones(3)}], X, source="a")
    assert one.digest == same.digest != other.digest


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.zeros((2, 3)), "z": np.zeros((2, 3))}, "no input 'y'"),
        ({"x": np.zeros((2, 4))}, r"shape \[4\]"),
        ({"x": np.array([[0, 1, 2], [0, np.nan, 2]])}, "sample 1.*NaN"),
        ({"x": np.zeros((0, 3))}, "no sample"),
        ({"x": np.zeros((2, 3), complex)}, "without loss"),
        ({"x": np.full((1, 3), 1e300)}, "without loss"),
        ({"x": np.zeros((2, 3)), "labels": np.zeros(3, int)}, "labels"),
        ({"x": np.zeros((2, 3)), "labels": np.array([0.5, 1.5])}, "labels"),
    ],
)
def test_data_that_does_not_fit_is_named(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=words):
        load_samples(str(tmp_path / "d.npz"), X)


def test_integers_are_cast_only_where_they_fit(tmp_path: Path) -> None:
    np.savez(tmp_path / "ok.npz", ids=np.ones((2, 4), np.int64), mask=np.ones((2, 4), np.uint8))
    assert load_samples(str(tmp_path / "ok.npz"), TWO).inputs[0]["ids"].dtype == np.int32
    np.savez(tmp_path / "bad.npz", ids=np.full((2, 4), 2**40), mask=np.ones((2, 4)))
    with pytest.raises(DataError, match="without loss"):
        load_samples(str(tmp_path / "bad.npz"), TWO)


def test_a_file_of_float32_gives_bfloat16_which_no_file_holds(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array([[1.0, 1.001], [-2.5, 0.0]], np.float32))
    wanted = (TensorInfo(name="x", dtype="bfloat16", shape=(1, 2)),)
    rows = load_samples(str(tmp_path / "x.npz"), wanted).inputs
    assert [row["x"].dtype.name for row in rows] == ["bfloat16"] * 2
    assert [row["x"].tolist() for row in rows] == [[[1.0, 1.0]], [[-2.5, 0.0]]]
    np.savez(tmp_path / "bad.npz", x=np.full((1, 2), 3.4e38, np.float32))  # it rounds to infinity
    with pytest.raises(DataError, match="without loss"):
        load_samples(str(tmp_path / "bad.npz"), wanted)


def test_pickles_and_truncated_archives_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        load_samples(str(tmp_path / "p.npz"), X)
    np.savez(tmp_path / "t.npz", x=np.zeros((9, 3)))
    data = (tmp_path / "t.npz").read_bytes()
    (tmp_path / "t.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        load_samples(str(tmp_path / "t.npz"), X)


def test_npy_folders_are_read_in_order_of_name(tmp_path: Path) -> None:
    for index in (2, 0, 1):
        np.save(tmp_path / f"{index}.npy", np.full((1, 3), index, np.float32))
    assert [sample["x"][0, 0] for sample in load_samples(str(tmp_path), X).inputs] == [0, 1, 2]
    with pytest.raises(DataError, match="inputs ids, mask"):
        load_samples(str(tmp_path), TWO)


def test_one_npy_subfolder_per_input(tmp_path: Path) -> None:
    for name, kind in (("ids", np.int32), ("mask", np.float32)):
        (tmp_path / name).mkdir()
        for index in range(3):
            np.save(tmp_path / name / f"{index}.npy", np.full((1, 4), index, kind))
    assert len(load_samples(str(tmp_path), TWO)) == 3
    (tmp_path / "mask" / "2.npy").unlink()
    with pytest.raises(DataError, match="different numbers"):
        load_samples(str(tmp_path), TWO)


def _picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (20, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_images_are_scaled_ordered_and_classed_by_folder(tmp_path: Path) -> None:
    _picture(tmp_path / "red" / "a.png", (255, 0, 0))
    _picture(tmp_path / "blue" / "b.png", (0, 0, 255))
    options = ImagePreprocessing(scale=1 / 127.5, mean=(1.0,), channels="bgr")
    samples = load_samples(str(tmp_path), PICTURE, image=options, class_names=("green", "Red, crimson", "blue"))
    assert samples.image == options
    assert samples.labels is not None
    assert samples.labels.tolist() == [2, 1]
    assert samples.inputs[0]["image"].shape == (1, 3, 8, 8)
    assert samples.inputs[0]["image"][0, :, 0, 0].tolist() == [1.0, -1.0, -1.0]  # blue comes first in bgr


def test_uint8_nhwc_models_get_raw_pixels_and_labels_from_a_file(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png", (1, 2, 3))
    (tmp_path / "labels.txt").write_text("7\n")
    samples = load_samples(str(tmp_path), (TensorInfo(name="i", dtype="uint8", shape=(1, 4, 4, 3)),))
    assert samples.inputs[0]["i"][0, 0, 0].tolist() == [1, 2, 3]
    assert samples.labels is not None
    assert samples.labels.tolist() == [7]


def test_a_corrupt_image_is_named(tmp_path: Path) -> None:
    _picture(tmp_path / "good.png", (0, 0, 0))
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"bad\.png"):
        load_samples(str(tmp_path), PICTURE)


def test_a_function_yields_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mydata_a.py").write_text(
        "import numpy as np\ndef rows():\n    for i in range(9):\n        yield {'x': np.full(3, i), 'label': i}\n"
        "def broken():\n    yield np.zeros(3)\n    raise ValueError('disk on fire')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    samples = load_samples("mydata_a:rows", X, limit=4)
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"sample 1.*disk on fire"):
        load_samples("mydata_a:broken", X)
    with pytest.raises(OptionError) as caught:
        load_samples("mydata_a:row", X)
    assert "rows" in caught.value.advice


@pytest.mark.parametrize("source", ["nothing_there", "no.such.module:function", __file__])
def test_other_sources_are_refused_with_advice(source: str) -> None:
    with pytest.raises(NpuopsError) as caught:
        load_samples(source, X)
    assert caught.value.advice


def test_subfolders_without_class_names_are_no_labels_unless_they_are_numbers(tmp_path: Path) -> None:
    for name in ("12", "7"):
        _picture(tmp_path / "numbers" / name / "a.png", (0, 0, 0))
    for name in ("cat", "dog"):
        _picture(tmp_path / "words" / name / "a.png", (0, 0, 0))
    numbered = load_samples(str(tmp_path / "numbers"), PICTURE)
    assert numbered.labels is not None
    assert numbered.labels.tolist() == [12, 7]
    assert load_samples(str(tmp_path / "words"), PICTURE).labels is None


@pytest.mark.parametrize(("names", "words"), [(("cat", "hound"), "like none"), (("dog", "dog"), "0, 1")])
def test_a_subfolder_that_is_no_class_or_several_is_named(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    _picture(tmp_path / "dog" / "a.png", (0, 0, 0))
    with pytest.raises(DataError, match=f"dog.*{words}"):
        load_samples(str(tmp_path), PICTURE, class_names=names)


def test_a_limit_takes_images_of_every_class(tmp_path: Path) -> None:
    for name in ("0", "1", "2"):
        for index in range(4):
            _picture(tmp_path / name / f"{index}.png", (0, 0, 0))
    samples = load_samples(str(tmp_path), PICTURE, limit=3)
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 2]


def test_random_samples_are_what_every_model_takes() -> None:
    wanted = (
        TensorInfo(name="image", dtype="uint8", shape=(1, 4096)),
        TensorInfo(name="x", dtype="float16", shape=(2, 3)),
        TensorInfo(name="brain", dtype="bfloat16", shape=(2, 3)),
        TensorInfo(name="ids", dtype="int64", shape=(1, 8)),
        TensorInfo(name="mask", dtype="bool", shape=(4, 8)),
        TensorInfo(name="step", dtype="int32", shape=()),
    )
    for row in random_samples(wanted, 8, 0).inputs:
        assert {name: (array.dtype.name, array.shape) for name, array in row.items()} == {
            tensor.name: (tensor.dtype, tensor.shape) for tensor in wanted
        }
        assert row["image"].max() > 200  # every level, not only 0 and 1
        assert set(np.unique(row["ids"])) <= {0, 1}
        assert row["mask"].any(axis=-1).all()  # a mask that hides a whole row has no meaning


@pytest.mark.parametrize(("dtype", "shape"), [("float32", (1, "n")), ("string", (1,)), ("float32", None)])
def test_an_input_that_cannot_be_made_up_is_asked_for(dtype: str, shape: tuple[int | str, ...] | None) -> None:
    with pytest.raises(DataError) as caught:
        random_samples((TensorInfo(name="x", dtype=dtype, shape=shape),), 1, 0)
    assert caught.value.advice


def test_random_samples_say_that_they_are_random() -> None:
    samples = random_samples(TWO, 3, 0)
    assert len(samples) == 3
    assert "random" in samples.source
    assert samples.digest == random_samples(TWO, 3, 0).digest != random_samples(TWO, 3, 1).digest


def test_an_input_of_no_numbers_is_a_clear_error(tmp_path: Path) -> None:
    words = (TensorInfo(name="x", dtype="string", shape=(1, 3)),)
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3)))
    with pytest.raises(DataError, match="'x' is string"):
        load_samples(str(tmp_path / "d.npz"), words)
    _picture(tmp_path / "a.png", (0, 0, 0))
    with pytest.raises(DataError, match="'image' is string"):
        load_samples(str(tmp_path), (TensorInfo(name="image", dtype="string", shape=(1, 3, 8, 8)),))


def test_an_empty_input_can_be_made_up() -> None:
    (row,) = random_samples((TensorInfo(name="ids", dtype="int64", shape=(1, 0)),), 1, 0).inputs
    assert row["ids"].shape == (1, 0)


def test_a_picture_that_would_grow_beyond_reason_is_refused_before_it_does(tmp_path: Path) -> None:
    _picture(tmp_path / "thread.png", (0, 0, 0), size=(1, 60_000))
    with pytest.raises(DataError, match=r"thread\.png.*1x60000"):
        load_samples(str(tmp_path), (TensorInfo(name="image", dtype="float32", shape=(1, 3, 224, 224)),))
