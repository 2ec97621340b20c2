"""The graphs and the mapping that validate the predictor: they hang together, and the protocols run on them."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from npuops.models.open import open_model
from npuops.vnpu.work import workload_of

FOLDER = Path(__file__).parent.parent / "benchmarks" / "predictor"


def read(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_graph_is_listed_and_every_mapped_row_names_one() -> None:
    listed = {row["graph"] for row in read("graphs.csv")}
    assert listed == {path.stem for path in (FOLDER / "graphs").glob("*.onnx")}
    assert {row["graph"] for row in read("rows.csv")} <= listed
    assert len(listed) >= 60


@pytest.mark.slow
def test_every_graph_is_read_with_the_macs_that_the_list_tells() -> None:
    for row in read("graphs.csv"):
        model = open_model(FOLDER / "graphs" / f"{row['graph']}.onnx")
        assert workload_of(model).macs == pytest.approx(float(row["gmacs"]) * 1e9, rel=1e-3, abs=1e5), row["graph"]
        assert model.is_static, row["graph"]


SMALL = """
import numpy as np
from published import load_rows, published_file
from protocols import chips_of, new_chip, new_vendor, seen_chip
from siblings import pairs_of
rows = [row for row in load_rows(published_file()) if row.chip in {"rk3588", "dpu-b4096", "rk3566"}]
chips = chips_of(rows)
for chip in chips:
    others = [other for other in chips if other is not chip]
    drawn = new_chip(chip, others, 10, np.random.default_rng(0))
    for answers in (seen_chip(chip, others), drawn, new_vendor(chip, chips)):
        print(chip.name, len(answers), np.median([abs(a.us / a.row.us - 1) for a in answers]))
for pair in pairs_of({chip.name: seen_chip(chip, [one for one in chips if one is not chip]) for chip in chips}):
    print(pair.chip, len(pair.here), np.median([abs(a.us / a.row.us - 1) for a in pair.answers()]))
"""


@pytest.mark.slow
def test_the_predictor_is_about_right_about_chips_that_it_has_rows_of(shared_data: Path) -> None:
    del shared_data  # skips where the published table is not there
    done = subprocess.run(
        [sys.executable, "-c", SMALL], cwd=FOLDER, capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    medians = [float(line.split()[2]) for line in done.stdout.splitlines()]
    assert len(medians) == 11
    assert max(medians[0:9:3]) < 0.3
    assert max(medians[9:]) < 0.2, "rk3566 and rk3588 tell of each other"
