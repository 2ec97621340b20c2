"""How right the predictor is about real chips: four protocols over every published row that a graph stands for.

    python benchmarks/predictor/validate.py [--ratios] [--json OUT.json]

Needs ../shared/data/npu_latency_published.csv (or NPUOPS_SHARED).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parent))

from protocols import Answer, chips_of, new_chip, new_vendor, ratios, seen_chip
from published import load_rows, published_file
from siblings import pairs_of

from npuops.vnpu.perf import RATES

ANCHORS = (0, 3, 10)
CEILING = (
    "The ceiling: between two releases of Qualcomm's compiler (2.42, 2.43) 5 to 7 % of the rows moved by more than 10 %"
    " through QNN and TFLite, half of them through ONNX (facts/performance-models.md, 4.4)."
)
NOMINAL_COVERAGE = 0.8


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--ratios", action="store_true", help="print what chips have in common, for vnpu/prior.py")
    options.add_argument("--json", type=Path, help="write every answer")
    chosen = options.parse_args()
    file = published_file()
    if file is None:
        sys.exit("SKIPPED: ../shared/data/npu_latency_published.csv is not there")
    started = time.perf_counter()
    rows = load_rows(file)
    chips = chips_of(rows)
    print(f"{len(rows)} rows, {len({row.graph for row in rows})} graphs, {len(chips)} chips")
    if chosen.ratios:
        for name, value in zip(RATES, ratios(chips), strict=True):
            print(f'    "{name}": {np.exp(value):.3g},')
    rng = np.random.default_rng(0)
    tables = {"(a) seen chip, unseen family": {}, **{f"(b) new chip, {k} anchors": {} for k in ANCHORS}}
    tables["(c) new vendor"], tables["(d) the model was measured on a sibling"] = {}, {}
    for chip in chips:
        others = [other for other in chips if other is not chip]
        tables["(a) seen chip, unseen family"][chip.name] = seen_chip(chip, others)
        for k in ANCHORS:
            tables[f"(b) new chip, {k} anchors"][chip.name] = new_chip(chip, others, k, rng)
        tables["(c) new vendor"][chip.name] = new_vendor(chip, others)
    for pair in pairs_of(tables["(a) seen chip, unseen family"]):
        tables["(d) the model was measured on a sibling"].setdefault(pair.chip, []).extend(pair.answers())
    for title, found in tables.items():
        show(title, found)
    print(f"\n{CEILING}\n\n{time.perf_counter() - started:.0f} s")
    if chosen.json:
        chosen.json.write_text(json.dumps(plain(tables), indent=1))


def show(title: str, found: dict[str, list[Answer]]) -> None:
    print(f"\n### {title}\n")
    print(
        "| chip | rows | MAPE | median | ±10 % | ±20 % | Spearman | ≥ 1 ms | < 1 ms | 80 % interval holds | baseline |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, answers in found.items():
        if answers:
            print(f"| {name} | {' | '.join(cells(answers))} |")
    everything = [answer for answers in found.values() for answer in answers]
    print(f"| all | {' | '.join(cells(everything))} |")


def cells(answers: Sequence[Answer]) -> list[str]:
    measured = np.array([answer.row.us for answer in answers])
    error = np.abs(np.array([answer.us for answer in answers]) / measured - 1)
    simple = np.abs(np.array([answer.plain_us for answer in answers]) / measured - 1)
    slow = measured >= 1000
    return [
        str(len(answers)),
        f"{error.mean():.1%}",
        f"{np.median(error):.1%}",
        f"{(error <= 0.1).mean():.0%}",
        f"{(error <= 0.2).mean():.0%}",
        f"{spearmanr(measured, [answer.us for answer in answers])[0]:.3f}",
        f"{error[slow].mean():.1%}" if slow.any() else "–",
        f"{error[~slow].mean():.1%}" if (~slow).any() else "–",
        f"{coverage(answers):.0%}",
        f"{np.nanmean(simple):.1%}" if np.isfinite(simple).any() else "–",
    ]


def coverage(answers: Sequence[Answer]) -> float:
    """Share of rows inside an interval whose factors come from the rows of other families."""
    logs = np.array([np.log(answer.row.us / answer.us) for answer in answers])
    families = np.array([answer.row.family for answer in answers])
    tail = (1 - NOMINAL_COVERAGE) / 2
    held = 0
    for family in set(families):
        low, high = np.quantile(logs[families != family], [tail, 1 - tail]) if len(set(families)) > 1 else (0, 0)
        inside = (logs[families == family] >= low) & (logs[families == family] <= high)
        held += int(inside.sum())
    return held / len(answers)


def plain(tables: dict[str, dict[str, list[Answer]]]) -> object:
    return {
        title: {
            chip: [
                {"graph": a.row.graph, "format": a.row.format, "measured_us": a.row.us, "predicted_us": round(a.us, 1)}
                for a in answers
            ]
            for chip, answers in found.items()
        }
        for title, found in tables.items()
    }


if __name__ == "__main__":
    main()
