from __future__ import annotations

from pathlib import Path

import pytest

from npuops import app
from npuops.errors import DataError, OptionError, UsageError


@pytest.mark.parametrize(("words", "value"), [("1%", 0.01), ("0.01", 0.01), ("0", 0.0), ("0.5%", 0.005)])
def test_a_drop_is_a_percentage_or_a_fraction(words: str, value: float) -> None:
    assert app.parse_drop(words) == pytest.approx(value)


@pytest.mark.parametrize("words", ["", "%", "-1%", "100%", "1", "nan", "x"])
def test_a_drop_that_is_no_drop_is_refused_with_an_example(words: str) -> None:
    with pytest.raises(UsageError) as caught:
        app.parse_drop(words)
    assert "1%" in caught.value.advice


def test_a_model_of_the_zoo_brings_its_data() -> None:
    source = app.find_model("zoo:digits-cnn")
    assert source.path.is_file()
    assert source.calibration is not None
    assert source.evaluation is not None
    assert source.labels is not None
    assert len(source.labels) == 10


def test_an_unknown_zoo_model_is_answered_with_the_nearest() -> None:
    with pytest.raises(OptionError) as caught:
        app.find_model("zoo:digit-cnn")
    assert caught.value.advice == "did you mean 'digits-cnn'?"


def test_labels_are_the_lines_without_what_editors_add(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffcat\r\n\r\nblack dog \r\n\r\n".encode())
    assert app.read_labels(path) == ("cat", "", "black dog")


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe\xff"])
def test_labels_that_cannot_be_read_are_a_clear_error(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"labels\.txt"):
        app.read_labels(path)
