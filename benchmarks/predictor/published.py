"""Published latencies of the networks in `graphs/`: one median for each chip, graph and number format."""

from __future__ import annotations

import csv
import os
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from npuops.models.open import open_model
from npuops.vnpu.profile import Profile, load_profile, profile_names
from npuops.vnpu.work import Workload, workload_of

HERE = Path(__file__).parent
FORMATS = {
    "int8": "int8",
    "int8 (mixed int8/16)": "int8",
    "int8 (assumed)": "int8",
    "fp16": "fp16",
    "w8a16": "w8a16",
    "fp32": "fp32",
}
QUALCOMM_RUNTIME = "qnn_dlc"
"""Of the runtimes that Qualcomm's rows name, the one whose compiler is the vendor's own."""

CPU_TOO = "post-process op runs on CPU"
"""Detectors timed with their non-maximum suppression; the graphs end before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One chip running one graph in one number format; batch 1, wholly on the NPU."""

    chip: str
    graph: str
    family: str
    format: str
    us: float


def published_file() -> Path | None:
    """The table beside the project, if it is there."""
    shared = Path(os.environ.get("NPUOPS_SHARED", HERE.parents[2] / "shared"))
    file = shared / "data" / "npu_latency_published.csv"
    return file if file.is_file() else None


def load_rows(file: Path) -> list[Row]:
    """Every published row that a profile and a graph stand for."""
    chips = {device: name for name in profile_names() for device in load_profile(name).published_device}
    families = {row["graph"]: row["family"] for row in _csv(HERE / "graphs.csv")}
    graphs = defaultdict(list)
    for row in _csv(HERE / "rows.csv"):
        graphs[row["published_model"]].append(row)
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in _csv(file):
        if row["device"] not in chips or not _is_usable(row):
            continue
        for rule in graphs[row["model"]]:
            if _matches(rule, row):
                found[chips[row["device"]], rule["graph"], FORMATS[row["dtype"]]].append(float(row["latency_ms"]) * 1e3)
                break
    return [
        Row(chip=chip, graph=graph, family=families[graph], format=format_, us=statistics.median(values))
        for (chip, graph, format_), values in sorted(found.items())
        if format_ in load_profile(chip).formats
    ]


def _is_usable(row: dict[str, str]) -> bool:
    if not row["latency_ms"] or row["dtype"] not in FORMATS or row["batch"] not in {"", "1"}:
        return False
    if row["vendor"] == "Qualcomm" and not row["runtime"].startswith(QUALCOMM_RUNTIME):
        return False
    if CPU_TOO in row["runtime"]:
        return False
    layers = re.search(r"layers npu/total (\d+)/(\d+)", row["runtime"])
    return layers is None or layers[1] == layers[2]


def _matches(rule: dict[str, str], row: dict[str, str]) -> bool:
    return (
        rule["vendor"] in {"", row["vendor"]}
        and rule["device"] in row["device"]
        and rule["published_shape"] in {"", row["input_shape"]}
    )


@cache
def workload(graph: str) -> Workload:
    """The work of a graph of `graphs/`."""
    return workload_of(open_model(HERE / "graphs" / f"{graph}.onnx"))


@cache
def profile(chip: str) -> Profile:
    """A bundled profile."""
    return load_profile(chip)


def _csv(file: Path) -> Iterator[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as text:
        yield from csv.DictReader(text)
