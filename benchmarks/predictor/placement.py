"""Our operator rules against published placements: how many operators are put where the chip puts them.

For every published row whose model has a skeleton::

    right(row) = 1 - |share of operators that we put on the NPU - share that the chip put there|
    ops right  = sum of layers x right(row) / sum of layers          (layers: the row's published total)

The published operators have no names, so shares are all that can be compared: two wrong operators that cancel each
other count as right. Skeletons are ONNX graphs; a TFLite row counts TFLite operators, of which an ONNX operator can be
several. Q/DQ pairs are not counted on our side. `all on NPU` is what the empty rule "everything runs on the NPU" gets.

ONNX rows are left out (their layers are counted twice, docs/placement.md).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from npuops.models.model import QDQ_OPS, Model
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


def graph_names(folder: Path) -> dict[str, str]:
    """Published Qualcomm model → skeleton, from rows.csv."""
    with (folder / "rows.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["vendor"] == "Qualcomm" and not line["device"]]
    return {line["published_model"]: line["graph"] for line in lines}


def share_on_npu(model: Model, processor: Processor, number_format: str, route: Route) -> float:
    placed = place_on(model, processor, number_format, route=route)
    work = [place for layer, place in zip(model.layers, placed, strict=True) if layer.op not in QDQ_OPS]
    return sum(place.runs_on is RunsOn.NPU for place in work) / len(work)


def compare(published: Path, folder: Path) -> list[Row]:
    """Every row that can be judged."""
    names, rows = graph_names(folder), []
    models: dict[Path, Model] = {}
    shares: dict[tuple[Path, Processor, str, Route], float] = {}
    with published.open(newline="") as file:
        table = list(csv.DictReader(file))
    for line in table:
        graph = names.get(line["model"], names.get(f"{line['model']} [{line['component']}]", ""))
        path = folder / "graphs" / f"{graph}.onnx"
        if line["device"] not in PROCESSORS or line["runtime"] not in ROUTES or not graph or not path.exists():
            continue
        if path not in models:
            models[path] = open_model(path)
        where = (PROCESSORS[line["device"]], FORMATS[line["precision"]], ROUTES[line["runtime"]])
        if (path, *where) not in shares:
            shares[path, *where] = share_on_npu(models[path], *where)
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
                ours=shares[path, *where],
            )
        )
    return rows


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
    too_much = sum(row.ours == 1 and row.published < 1 for row in rows)
    too_little = sum(row.ours < 1 and row.published == 1 for row in rows)
    unit = sum(unit_of(row) for row in rows) / len(rows)
    mixed = sum(row.published < 1 for row in rows)
    return (
        f"| {name} | {len(rows)} | {mixed} | {ops_right(rows):.1%} | {all_on_npu(rows):.1%} | {unit:.1%} "
        f"| {too_much} | {too_little} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("published", type=Path, help="npu_placement_published.csv")
    parser.add_argument("--folder", type=Path, default=HERE, help="where rows.csv and graphs/ are")
    args = parser.parse_args()
    rows = compare(args.published, args.folder)
    if not rows:
        print(f"no published row has a skeleton in {args.folder}", file=sys.stderr)
        return 2
    print("| device | rows | not whole | ops right | all on NPU | unit right | we: whole, they: not | the reverse |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for device in sorted({row.device for row in rows}):
        print(line_of(device, [row for row in rows if row.device == device]))
    print(line_of("all", rows))
    partly = [row for row in rows if row.published < 1]
    if partly:
        print(line_of("all that are not whole", partly))
    print(f"\n{len({row.model for row in rows})} models. Rows that are less than 95 % right:")
    for row in sorted(rows, key=lambda row: row.right):
        if row.right < GOAL:
            print(
                f"  {row.device}, {row.model} {row.precision} {row.runtime}: published {row.published:.1%} "
                f"({row.unit}), ours {row.ours:.1%}"
            )
    return 0 if ops_right(rows) >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
