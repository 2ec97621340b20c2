from __future__ import annotations

import errno
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from command_line import npuops
from npuops.errors import DataError, OptionError, StorageError
from npuops.models.open import open_model
from npuops.models.zoo import zoo_model
from npuops.vnpu.calibrate import calibrate
from npuops.vnpu.profile import load_profile, profile_text
from npuops.vnpu.target import VnpuTarget
from small_graphs import save

CNN = zoo_model("digits-cnn").model


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / 'rows of "my" board.csv'
    file.write_text("model,latency_ms,group\n" + "".join(f"{CNN},{ms},g{ms}\n" for ms in (0.4, 0.5, 0.6)))
    return file


def test_the_profile_that_is_written_is_the_one_that_is_returned(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "mine.toml"
    calibrated = calibrate(rows, "rk3588", out)
    assert load_profile(out) == calibrated
    assert calibrated.effective is not None
    assert rows.name in calibrated.effective.source
    assert calibrated.memory == load_profile("rk3588").memory
    assert [path.name for path in out.parent.iterdir()] == ["mine.toml"]


def test_a_profile_of_ones_own_is_calibrated_in_its_place(rows: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    text, _ = profile_text("rk3566")
    mine.write_text(text)
    first = calibrate(rows, str(mine), mine)
    assert calibrate(rows, str(mine), mine) == first == load_profile(mine)


def test_a_name_by_which_it_could_not_be_opened_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        calibrate(tmp_path / "none.csv", "rk3588", tmp_path / "mine")
    assert "mine.toml" in caught.value.advice


def test_bad_rows_leave_an_older_profile_as_it_was(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.toml"
    calibrate(rows, "rk3588", out)
    before = out.read_bytes()
    rows.write_text("model,latency_ms\nx.onnx,slow\n")
    with pytest.raises(DataError):
        calibrate(rows, "rk3588", out)
    assert out.read_bytes() == before


def test_a_full_disk_leaves_an_older_profile_as_it_was(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "place" / "mine.toml"
    calibrate(rows, "rk3588", out)
    before = out.read_bytes()

    def full(_descriptor: int) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        calibrate(rows, "rk3566", out)
    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["mine.toml"]


def test_a_profile_that_hides_its_fitted_section_in_a_text_is_refused(rows: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    text, _ = profile_text("rk3588")
    start = text.index("notes = ")
    line = text[start : text.index("\n", start)]
    mine.write_text(text.replace(line, 'notes = """\n[effective]\nis what I write here"""'))
    with pytest.raises(OptionError):
        calibrate(rows, str(mine), tmp_path / "out.toml")
    assert not (tmp_path / "out.toml").exists()


@pytest.mark.slow
def test_what_is_calibrated_anew_is_what_check_build_and_run_use(rows: Path, tmp_path: Path) -> None:
    """The path stays the same, so only the content can tell the compile cache that this is another chip."""
    mine, cache = tmp_path / "mine.toml", str(tmp_path / "cache")
    priced = []
    for slower in (1, 4):
        lines = "".join(f"{CNN},{ms * slower},g{ms}\n" for ms in (0.4, 0.5, 0.6))
        rows.write_text(f"model,latency_ms,group\n{lines}")
        calibrate(rows, "rk3588", mine)
        target = f"vnpu:{mine}"
        checked = json.loads(npuops("check", "zoo:digits-cnn", "--target", target, "--json"))
        out = tmp_path / f"built-{slower}"
        npuops("build", "zoo:digits-cnn", "--target", target, "-o", out, NPUOPS_CACHE=cache)
        steps = json.loads((out / "program.json").read_bytes())["program"]["steps"]
        priced.append(sum(step["compute_us"] + step["memory_us"] + step["overhead_us"] for step in steps))
        assert priced[-1] == pytest.approx(checked["latency"]["us"], rel=0.05)
    assert priced[1] > 2 * priced[0]


def stack(path: Path, convolutions: int, channels: int) -> Path:
    """Convolutions with an Erf in the middle, which an RK3588's NPU does not take."""
    weight = np.zeros((channels, channels, 3, 3), np.float32)
    names = ["x", *(f"t{index}" for index in range(convolutions)), "y"]
    middle = convolutions // 2
    nodes = [
        helper.make_node("Erf", [before], [after])
        if index == middle
        else helper.make_node("Conv", [before, "w"], [after], pads=[1, 1, 1, 1])
        for index, (before, after) in enumerate(pairwise(names))
    ]
    return save(path, nodes, ([1, channels, 28, 28],) * 2, w=weight)


def test_a_board_on_which_layers_fall_back_is_calibrated_as_check_will_price_it(tmp_path: Path) -> None:
    """Else the host's time counts twice: in the fitted rates, and again in every prediction."""
    chip, lines = load_profile("rk3588"), ["model,latency_ms"]
    models = [stack(tmp_path / f"{n}-{c}.onnx", n, c) for n, c in ((6, 64), (12, 64), (8, 96), (16, 96), (6, 128))]
    for path in models:
        latency = VnpuTarget(chip).check(open_model(path)).latency
        assert latency is not None
        lines.append(f"{path},{latency.us / 1e3}")
    rows = tmp_path / "rows.csv"
    rows.write_text("\n".join(lines))
    calibrated = calibrate(rows, "rk3588", tmp_path / "mine.toml")
    for path, line in zip(models, lines[1:], strict=True):
        latency = VnpuTarget(calibrated).check(open_model(path)).latency
        assert latency is not None
        assert latency.us / 1e3 == pytest.approx(float(line.rpartition(",")[2]), rel=0.03)
