from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from npuops.cli.profiles_text import table_of
from npuops.models.zoo import zoo_model
from npuops.vnpu.profile import profile_names, read_profile
from test_vnpu_profile import EFFECTIVE, RK3588


def npuops(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}  # so that nothing is folded
    command = [sys.executable, "-m", "npuops.cli.main", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def fitted(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(RK3588 + EFFECTIVE, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("words", [("profiles",), ("profiles", "list")])
def test_the_list_has_every_chip_for_people_and_for_programs(words: tuple[str, ...]) -> None:
    text = npuops(*words)
    assert text.returncode == 0, text.stderr
    assert [line.split()[0] for line in text.stdout.splitlines()[1:]] == list(profile_names())
    found = json.loads(npuops(*words, "--json").stdout)
    assert found["schema"] == "npuops.profiles/1"
    assert [profile["name"] for profile in found["profiles"]] == list(profile_names())
    assert {"peak_int8_tops", "sram_kib", "dram_gbps", "formats", "effective_error"} <= set(found["profiles"][0])


def test_a_chip_is_shown_with_the_source_of_every_figure() -> None:
    found = json.loads(npuops("profiles", "show", "rk3588", "--json").stdout)
    assert found["schema"] == "npuops.chip-profile/1", "npuops.profile/1 is what `npuops profile` prints"
    figures = [figure for section in found["figures"].values() for figure in section.values()]
    assert {tuple(figure) for figure in figures} == {("value", "from", "origin", "source")}
    assert found["figures"]["compute"]["macs_per_cycle"]["origin"] == "document"
    text = npuops("profiles", "show", "rk3588").stdout
    for section, keys in found["figures"].items():
        for key, figure in keys.items():
            assert f"{section}.{key} " in text
            assert figure["source"] in text


def test_fitted_rates_are_shown_beside_the_nominal_peak(fitted: str) -> None:
    text = npuops("profiles", "show", fitted).stdout
    dense = next(line.split() for line in text.splitlines() if line.startswith("mac.dense"))
    assert dense == ["mac.dense", "2.2", "0.9766", "44.4%"]
    assert "fitted on 37 rows" in text
    assert "leave one family out" in text
    effective = json.loads(npuops("profiles", "show", fitted, "--json").stdout)["effective"]
    assert effective["utilisation"]["mac.dense"] == pytest.approx(0.444, abs=0.001)
    assert effective["error"]["mape"] == 0.11
    assert effective["from"].startswith("fitted on 37 rows")


@pytest.mark.parametrize(
    ("effective", "words"), [(EFFECTIVE, "11% (37 rows)"), (re.sub("error = .*", "", EFFECTIVE), "unknown"), ("", "-")]
)
def test_the_list_tells_the_error_of_a_fit_where_it_is_known(effective: str, words: str) -> None:
    screen = Console(width=200, file=StringIO())
    with screen.capture() as shown:
        screen.print(table_of([read_profile(RK3588 + effective, where="chip.toml")]))
    assert shown.get().rstrip().endswith(f"  {words}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "rk3589"), "did you mean 'rk3588'?"),
        (("show", "nowhere/chip.toml"), "cannot read nowhere/chip.toml"),
        (("--json", "show", "rk3588"), "behind the sub-command"),
        (("shw",), "Usage:"),
    ],
)
def test_wrong_use_ends_with_two_and_says_what_is_wrong(arguments: tuple[str, ...], words: str) -> None:
    done = npuops("profiles", *arguments)
    assert done.returncode == 2
    assert words in done.stdout + done.stderr


def test_measurements_of_ones_own_board_calibrate_a_profile(tmp_path: Path) -> None:
    model = zoo_model("digits-cnn").model
    rows = tmp_path / "rows.csv"
    rows.write_text("model,latency_ms,group\n" + "".join(f"{model},{ms},g{ms}\n" for ms in (0.4, 0.5, 0.6)))
    out = tmp_path / "mine.toml"
    answer = json.loads(npuops("profiles", "fit", str(rows), "--profile", "rk3588", "-o", str(out), "--json").stdout)
    assert answer["effective"]["error"]["rows"] == 3
    assert "fitted on 3 rows of rows.csv" in answer["effective"]["from"]
    assert "fitted on 3 rows" in npuops("profiles", "show", str(out)).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model,latency_ms\n", "0 rows cannot calibrate"),
        ("model,latency\nx.onnx,1\n", "unknown column 'latency'"),
        ("model\nx.onnx\n", "no column 'latency_ms'"),
        ("model,latency_ms\nx.onnx,fast\n", "line 2: 'fast' is no latency"),
        ("model,latency_ms\nx.onnx,-1\n", "line 2: '-1' is no latency"),
        ("model,latency_ms\nmissing.onnx,1\n", "missing.onnx"),
    ],
)
def test_rows_that_say_nothing_are_refused_and_nothing_is_written(tmp_path: Path, text: str, words: str) -> None:
    rows, out = tmp_path / "rows.csv", tmp_path / "mine.toml"
    rows.write_text(text)
    done = npuops("profiles", "fit", str(rows), "--profile", "rk3588", "-o", str(out))
    assert done.returncode == 2
    assert words in done.stderr
    assert not out.exists()
