"""Write rows.csv, the map from published rows to skeletons: rows.py PUBLISHED_CSV (that table stays elsewhere)."""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import rows_edge
import rows_qualcomm
import rows_yolo
from table import read_table

FOLDER = Path(__file__).resolve().parent.parent
COLUMNS = ("vendor", "device", "published_model", "published_shape", "graph")
Row = dict[str, str]


def mapping() -> list[Row]:
    """Every line of the map as the tables beside this file give it."""
    lines: list[Row] = []
    for module in (rows_qualcomm, rows_edge, rows_yolo):
        for vendor, device, model, shape, graph in module.rows():
            lines.append(dict(zip(COLUMNS, (vendor, device, model, shape, graph), strict=True)))
    return lines


def covers(line: Row, published: Row) -> bool:
    """Whether a line of the map names this published row."""
    return (
        line["vendor"] == published["vendor"]
        and line["device"] in published["device"]
        and line["published_model"] == published["model"]
        and line["published_shape"] in {"", published["input_shape"]}
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("published", type=Path)
    args = parser.parse_args()
    with args.published.open(newline="") as file:
        published = list(csv.DictReader(file))
    graphs = read_table(FOLDER / "graphs.csv")
    lines = [line for line in mapping() if line["graph"] in graphs]
    missing = sorted({line["graph"] for line in mapping()} - set(graphs))
    used = [line for line in lines if any(covers(line, row) for row in published)]
    lost = sorted({(line["vendor"], line["published_model"]) for line in lines} - _keys(used))
    with (FOLDER / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(used, key=lambda line: tuple(line.values())))
    _count(used, published)
    print(f"{len(used)} lines, {len({line['graph'] for line in used})} graphs used of {len(graphs)}")
    print(f"graphs not exported yet: {missing}\nmodels not in the published table: {lost}")
    print(f"graphs without a row: {sorted(set(graphs) - {line['graph'] for line in used})}")
    return 0


def _keys(lines: Iterable[Row]) -> set[tuple[str, str]]:
    return {(line["vendor"], line["published_model"]) for line in lines}


def _count(lines: list[Row], published: list[Row]) -> None:
    """Print mapped rows (with a latency) and distinct graphs per device; complain about double cover."""
    by_model = defaultdict(list)
    for line in lines:
        by_model[line["vendor"], line["published_model"]].append(line)
    rows: dict[tuple[str, str], int] = defaultdict(int)
    graphs: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in published:
        hits = {line["graph"] for line in by_model[row["vendor"], row["model"]] if covers(line, row)}
        if len(hits) > 1:
            raise ValueError(f"{row['vendor']} {row['device']} {row['model']}: more than one graph {hits}")
        if hits and row["latency_ms"]:
            rows[row["vendor"], row["device"]] += 1
            graphs[row["vendor"], row["device"]] |= hits
    for (vendor, device), count in sorted(rows.items()):
        print(f"{vendor} | {device}: {count} rows, {len(graphs[vendor, device])} graphs")


if __name__ == "__main__":
    raise SystemExit(main())
