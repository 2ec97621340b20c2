"""The `--input` of the command line: every kind of file, and images by the options that are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from made_artifact import manifest
from npuops.cli.image_flag import parse_image_options
from npuops.cli.input_file import artifact_input, read_input
from npuops.errors import DataError, OptionError, UsageError
from npuops.events import Warned
from npuops.models.model import TensorInfo
from npuops.models.preprocessing import ImagePreprocessing
from npuops.testing import EventLog

PHOTO = (TensorInfo(name="x", dtype="float32", shape=(1, 3, 8, 8)),)


def photo(path: Path) -> str:
    image = pytest.importorskip("PIL.Image", reason="images need the extra `images`")
    image.new("RGB", (16, 12), (255, 0, 51)).save(path)
    return str(path)


def test_an_image_becomes_the_models_input_by_the_given_options(tmp_path: Path) -> None:
    source = photo(tmp_path / "red.png")
    plain = read_input(source, PHOTO, parse_image_options(None))["x"]
    assert plain.shape == (1, 3, 8, 8)
    np.testing.assert_allclose(plain[0, :, 0, 0], [1.0, 0.0, 0.2], atol=1e-6)
    scaled = read_input(source, PHOTO, parse_image_options(["mean=0.5", "std=0.5", "channels=bgr"]))["x"]
    np.testing.assert_allclose(scaled[0, :, 0, 0], [-0.6, -1.0, 1.0], atol=1e-6)


def test_an_image_that_is_none_is_an_error_of_ours(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image", reason="images need the extra `images`")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG torn")
    with pytest.raises(DataError, match=r"torn\.png"):
        read_input(str(tmp_path / "torn.png"), PHOTO, ImagePreprocessing())


def test_a_suffix_that_is_no_input_is_named_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("1 2 3", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_input(str(tmp_path / "x.txt"), PHOTO, ImagePreprocessing())
    assert ".npz" in caught.value.advice


def test_a_device_is_not_read_without_end() -> None:
    with pytest.raises(DataError, match="no file"):
        read_input("/dev/zero", PHOTO, ImagePreprocessing())


@pytest.mark.parametrize("word", ["mean", "mean=", "mean=a", "menu=1", "channels=rbg", "std=0", "resize=0.5"])
def test_a_slip_in_an_image_option_is_an_error(word: str) -> None:
    with pytest.raises(OptionError):
        parse_image_options([word])


def test_pixels_that_nobody_spoke_of_are_announced(tmp_path: Path) -> None:
    source, log = photo(tmp_path / "red.png"), EventLog()
    artifact_input(source, manifest(image=None, inputs=PHOTO), ["mean=0"], observe=log)
    assert log.events == []
    artifact_input(source, manifest(image=None, inputs=PHOTO), None, observe=log)
    assert ["--image" in event.advice for event in log.of(Warned)] == [True]


def test_what_the_artifact_records_holds_and_a_contradiction_is_refused(tmp_path: Path) -> None:
    source, log = photo(tmp_path / "red.png"), EventLog()
    recorded = manifest(image=ImagePreprocessing(mean=(0.5,), std=(0.5,)), inputs=PHOTO)
    for words in (None, ["std=0.5,0.5,0.5"]):
        made = artifact_input(source, recorded, words, observe=log)["x"]
        np.testing.assert_allclose(made[0, :, 0, 0], [1.0, -1.0, -0.6], atol=1e-6)
    with pytest.raises(UsageError, match="mean contradicts"):
        artifact_input(source, recorded, ["mean=0"], observe=log)
    assert log.events == []
