"""Our operator rules against published placements: how many operators are put where the chip puts them.

For every published row whose model has a skeleton::

    right(row) = 1 - |share of operators that we put on the NPU - share that the chip put there|
    ops right  = sum of layers x right(row) / sum of layers          (layers: the row's published total)

The published operators have no names, so shares are all that can be compared: two wrong operators that cancel each
other count as right. Skeletons are ONNX graphs, a TFLite row counts TFLite operators: what leaves the NPU is counted in
TFLite's operators (`OPERATORS_LEFT`). Q/DQ pairs are not counted on our side. `all on NPU` is what the empty rule
"everything runs on the NPU" gets.

Nearly all rows run wholly on the NPU, which the empty rule gets right too. So the harder questions are printed beside:
which rows fall back at all (found / missed / false), how many of the operators that leave were found, the same for the
rows of models that no rule was read off (`READ_OFF`), and how much of the published table has a skeleton.

ONNX rows are left out (their layers are counted twice, docs/placement.md).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from npuops.models.model import QDQ_OPS, Layer, Model
from npuops.models.open import open_model
from npuops.models.placement import RunsOn
from npuops.vnpu.rules_hexagon import Processor, Route, place_on

HERE = Path(__file__).resolve().parent
GOAL = 0.95
PROCESSORS = {
    "Dragonwing IQ-9075 EVK": Processor(version=73),
    "Dragonwing Q-6690 MTP": Processor(version=73, has_float16=False),
    "Dragonwing RB3 Gen 2 Vision Kit": Processor(version=68, has_float16=False),
    "QCS8275 (Proxy)": Processor(version=75),
    "QCS8550 (Proxy)": Processor(version=73),
    "SA7255P ADP": Processor(version=75),
    "SA8295P ADP": Processor(version=68),
    "SA8775P ADP": Processor(version=73),
    "Samsung Galaxy S24": Processor(version=75),
    "Samsung Galaxy S25": Processor(version=79),
    "Snapdragon 8 Elite Gen 5 QRD": Processor(version=81),
    "Snapdragon X Elite CRD": Processor(version=73),
    "Snapdragon X2 Elite CRD": Processor(version=81),
}
"""Versions decide nothing here; Q-6690's, QCS8275's and SA7255P's are from memory."""
FORMATS = {
    "float": "fp16",
    "mixed_with_float": "fp16",
    "w16a16": "w8a16",
    "w8a16": "w8a16",
    "w8a16_mixed_fp16": "fp16",
    "w8a16_mixed_int16": "w8a16",
    "w8a8": "int8",
    "w8a8_mixed_int16": "w8a16",
}
OPERATORS_LEFT = {"LayerNormalization": 10, "Conv": 2}
"""TFLite operators that leave the NPU with one ONNX layer which stays in float (a Conv: in three dimensions)."""
READ_OFF = frozenset({"resnet_3d", "resnet_2plus1d", "vit"})
"""Models whose rows the rule of the chips without float16, and `OPERATORS_LEFT`, were read off."""
ROUTES = {"tflite": Route.TFLITE, "qnn_dlc": Route.QNN, "qnn_context_binary": Route.QNN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published row and what the rules say of it."""

    device: str
    model: str
    precision: str
    runtime: str
    layers: int
    published: float
    """Share of the layers on the NPU."""
    unit: str
    ours: float

    @property
    def right(self) -> float:
        return 1 - abs(self.ours - self.published)

    @property
    def left(self) -> float:
        """Operators off the NPU, published."""
        return self.layers * (1 - self.published)

    @property
    def left_ours(self) -> float:
        """Operators off the NPU, by our rules."""
        return self.layers * (1 - self.ours)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much of the published table is compared."""

    rows: int
    """TFLite and QNN rows of the table."""
    not_whole: int
    """Of these, not wholly on the NPU."""
    ops_right: float
    """Over all of them, if every row without a skeleton were put on the NPU."""


def graph_names(folder: Path) -> dict[str, str]:
    """Published Qualcomm model → skeleton, from rows.csv."""
    with (folder / "rows.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["vendor"] == "Qualcomm" and not line["device"]]
    return {line["published_model"]: line["graph"] for line in lines}


def judged(table: Path) -> list[dict[str, str]]:
    """Rows of the table on the routes and devices that we have rules for."""
    with table.open(newline="") as file:
        return [line for line in csv.DictReader(file) if line["device"] in PROCESSORS and line["runtime"] in ROUTES]


def left_on(model: Model, processor: Processor, number_format: str, route: Route) -> tuple[float, float]:
    """Share of the layers off the NPU, and how many operators of the route they are."""
    placed = place_on(model, processor, number_format, route=route)
    work = [(layer, place) for layer, place in zip(model.layers, placed, strict=True) if layer.op not in QDQ_OPS]
    left = [layer for layer, place in work if place.runs_on is not RunsOn.NPU]
    return len(left) / len(work), sum(operators(layer, route) for layer in left)


def operators(layer: Layer, route: Route) -> int:
    return OPERATORS_LEFT.get(layer.op, 1) if route is Route.TFLITE else 1


def compare(published: Path, folder: Path) -> list[Row]:
    """Every row that can be judged."""
    names, rows = graph_names(folder), []
    models: dict[Path, Model] = {}
    left: dict[tuple[Path, Processor, str, Route], tuple[float, float]] = {}
    for line in judged(published):
        graph = names.get(line["model"], names.get(f"{line['model']} [{line['component']}]", ""))
        path = folder / "graphs" / f"{graph}.onnx"
        if not graph or not path.exists():
            continue
        if path not in models:
            models[path] = open_model(path)
        where = (PROCESSORS[line["device"]], FORMATS[line["precision"]], ROUTES[line["runtime"]])
        if (path, *where) not in left:
            left[path, *where] = left_on(models[path], *where)
        share, count = left[path, *where]
        total = int(line["layers_total"])
        rows.append(
            Row(
                device=line["device"],
                model=line["model"],
                precision=line["precision"],
                runtime=line["runtime"],
                layers=total,
                published=int(line["layers_npu"]) / total,
                unit=line["primary_compute_unit"],
                ours=1 - (min(1, count / total) if share < 1 else 1),
            )
        )
    return rows


def coverage(published: Path, rows: Iterable[Row]) -> Coverage:
    """What the compared rows are of the whole table."""
    table = judged(published)
    layers = sum(int(line["layers_total"]) for line in table)
    off = sum(int(line["layers_total"]) - int(line["layers_npu"]) for line in table)
    mended = sum(row.left - row.layers * (1 - row.right) for row in rows)
    partly = sum(line["layers_npu"] != line["layers_total"] for line in table)
    return Coverage(rows=len(table), not_whole=partly, ops_right=1 - (off - mended) / layers)


def ops_right(rows: Iterable[Row]) -> float:
    found = list(rows)
    return sum(row.layers * row.right for row in found) / sum(row.layers for row in found)


def all_on_npu(rows: Iterable[Row]) -> float:
    """What "everything runs on the NPU" gets."""
    found = list(rows)
    return sum(row.layers * row.published for row in found) / sum(row.layers for row in found)


def unit_of(row: Row) -> bool:
    """Whether the busiest unit is the same: the NPU, or not the NPU."""
    return (row.ours >= 0.5) == (row.unit == "NPU")


def line_of(name: str, rows: list[Row]) -> str:
    found = sum(row.ours < 1 and row.published < 1 for row in rows)
    missed = sum(row.ours == 1 and row.published < 1 for row in rows)
    false = sum(row.ours < 1 and row.published == 1 for row in rows)
    unit = sum(unit_of(row) for row in rows) / len(rows)
    left = sum(row.left for row in rows)
    share = f"{left_found(rows):.1%} of {left:.0f}" if left else "-"
    return (
        f"| {name} | {len(rows)} | {ops_right(rows):.1%} | {all_on_npu(rows):.1%} | {unit:.1%} "
        f"| {found} | {missed} | {false} | {share} |"
    )


def left_found(rows: Iterable[Row]) -> float:
    """Share of the operators off the NPU that the rules take off it too; the empty rule finds none."""
    found = list(rows)
    return sum(min(row.left, row.left_ours) for row in found) / sum(row.left for row in found)


def parts_of(rows: list[Row]) -> dict[str, list[Row]]:
    """The tables that are printed: by device, all, and the hard cases."""
    without = [row for row in rows if not PROCESSORS[row.device].has_float16]
    parts = {device: [row for row in rows if row.device == device] for device in sorted({row.device for row in rows})}
    return {
        **parts,
        "**all**": rows,
        "all that are not whole": [row for row in rows if row.published < 1],
        "chips without float16": without,
        "of these, models that no rule was read off": [row for row in without if row.model not in READ_OFF],
        "chips with float16": [row for row in rows if PROCESSORS[row.device].has_float16],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("published", type=Path, help="npu_placement_published.csv")
    parser.add_argument("--folder", type=Path, default=HERE, help="where rows.csv and graphs/ are")
    args = parser.parse_args()
    rows = compare(args.published, args.folder)
    if not rows:
        print(f"no published row has a skeleton in {args.folder}", file=sys.stderr)
        return 2
    print(
        "| rows | n | ops right | all on NPU | unit right | falls back: found | missed | false | operators off found |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name, part in parts_of(rows).items():
        if part:
            print(line_of(name, part))
    whole = coverage(args.published, rows)
    compared = sum(row.published < 1 for row in rows)
    print(
        f"\n{len({row.model for row in rows})} models; {len(rows)} of {whole.rows} TFLite and QNN rows have a skeleton,"
    )
    print(f"{compared} of the {whole.not_whole} that are not whole. Over all rows, with every row that has no")
    print(f"skeleton put on the NPU, {whole.ops_right:.1%} of the operators are right.")
    print("\nRows that are less than 95 % right:")
    for row in sorted(rows, key=lambda row: row.right):
        if row.right < GOAL:
            print(
                f"  {row.device}, {row.model} {row.precision} {row.runtime}: published {row.published:.1%} "
                f"({row.unit}), ours {row.ours:.1%}"
            )
    return 0 if ops_right(rows) >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
