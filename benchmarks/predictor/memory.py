"""Where weights and activations live, against what vendors publish: STM32N6 and the Edge TPU.

    python benchmarks/predictor/memory.py ../shared/data/npu_latency_published.csv

STM32N6: the memory columns of ST's model zoo (KiB of internal and external RAM, and of weights in flash). Edge TPU:
`edgetpu_memory.csv` beside this file (what its compiler printed, MiB), and the USB accelerator's latencies on a host
with USB 2 and on one with USB 3, whose difference is time on the bus.

Internal RAM is what the compiler took, not what it needed: it spreads buffers over free banks. So it is compared as a
share, and judged is what matters: whether activations leave the chip. Exits 1 after a false "stays on the chip".
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from published import HERE

from npuops.models.open import open_model
from npuops.models.placement import Placement, RunsOn
from npuops.vnpu.memory_plan import MemoryPlan, fit_of, plan_memory
from npuops.vnpu.profile import load_profile
from npuops.vnpu.work import workload_of

KIB, MIB = 2**10, 2**20
STM32, EDGE_TPU = "stm32n6", "coral-edgetpu"
USB2, USB3 = "Coral USB Accelerator (USB2, RPi 3B+ host)", "Coral USB Accelerator (RPi 4B host)"
USB_GRAPHS = {
    "mobilenet_v1_1.0_224_quant": "mobilenet_v1-224",
    "mobilenet_v2_1.0_224_quant": "mobilenet_v2-224",
    "inception_v1_224_quant": "googlenet-224",
    "inception_v4_299_quant": "inception_v4-299",
}
"""Models without post-processing on the host, whose speed differs, too."""
USB2_BYTES_PER_US = 38.0
"""Bulk transfers of USB 2 less those of USB 3: 35 to 40 MB/s."""
INPUT_AND_FIXED_US = 6100.0
"""Difference of MobileNet V2, which streams nothing: input, output and calls."""


@dataclass(frozen=True, kw_only=True)
class Spill:
    """One model: what leaves the chip, published and predicted, in bytes."""

    model: str
    published: float
    predicted: float
    noise: float = 0.0
    """Published figures up to this are none."""

    @property
    def verdict(self) -> str:
        really, said = self.published > self.noise, self.predicted > 0
        return {(True, False): "FALSE: STAYS", (False, True): "false: leaves"}.get((really, said), "right")


def plan(graph: str, chip: str) -> MemoryPlan:
    """All of a graph on the NPU at int8."""
    model, profile = open_model(HERE / "graphs" / f"{graph}.onnx"), load_profile(chip)
    everywhere = [Placement(name=one.name, op=one.op, runs_on=RunsOn.NPU, rule="published") for one in model.layers]
    found = plan_memory(model, workload_of(model), everywhere, profile, "int8")
    if not fit_of(found, profile).ok:
        print(f"{graph} runs on the {chip}, and is said not to fit")
    return found


def stm32n6(rows: Sequence[dict[str, str]]) -> list[Spill]:
    """Print the table of ST's rows; returns what leaves the chip."""
    print(f"### {STM32}: KiB, published → predicted\n")
    print("| model | internal RAM | external RAM | both | weights in flash | leaves the chip? |")
    print("|---|--:|--:|--:|--:|---|")
    spills: list[Spill] = []
    shares: dict[str, list[float]] = {"both": [], "weights": []}
    for row in rows:
        columns = re.findall(r"KiB=([\d.]+)", row["runtime"])
        graph = graph_of(row)
        if graph is None or len(columns) != 3:
            continue
        internal, external, weights = (float(column) * KIB for column in columns)
        found = plan(graph, STM32)
        peak = found.peak_bytes or 0
        spills.append(Spill(model=row["model"], published=external, predicted=found.spilled_bytes))
        shares["both"].append(peak / (internal + external))
        shares["weights"].append(found.weights_bytes / weights)
        cells = [
            pair(internal, found.pooled_bytes, KIB),
            pair(external, found.spilled_bytes, KIB),
            pair(internal + external, peak, KIB),
            pair(weights, found.weights_bytes, KIB),
        ]
        print(f"| {row['model']} | {' | '.join(cells)} | {spills[-1].verdict} |")
    for name, found_shares in shares.items():
        print(
            f"\n{name}: predicted is {min(found_shares):.2f} to {max(found_shares):.2f} of published, "
            f"MAPE {statistics.mean(abs(share - 1) for share in found_shares):.1%}"
        )
    return spills


def edge_tpu_logs() -> list[Spill]:
    """Print the table of the compiler's logs."""
    print(f"\n### {EDGE_TPU}: compiler logs, MiB of weights, published → predicted\n")
    print("| model | cached | streamed | streams? | source |")
    print("|---|--:|--:|---|---|")
    spills = []
    with (HERE / "edgetpu_memory.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found = plan(row["graph"], EDGE_TPU)
            cached, streamed = (float(row[key]) * MIB for key in ("cached_mib", "streamed_mib"))
            spills.append(Spill(model=row["graph"], published=streamed, predicted=found.streamed_bytes))
            cells = [pair(cached, found.cached_bytes, MIB, 2), pair(streamed, found.streamed_bytes, MIB, 2)]
            print(f"| {row['graph']} | {' | '.join(cells)} | {spills[-1].verdict} | {row['source']} |")
    return spills


def edge_tpu_buses(rows: Sequence[dict[str, str]]) -> list[Spill]:
    """Print what the difference of two buses says of streamed weights."""
    print(f"\n### {EDGE_TPU}: MiB of weights over the bus, by USB 2 less USB 3 → predicted\n")
    print("| model | difference, ms | streamed | streams? |")
    print("|---|--:|--:|---|")
    times = {(row["device"], row["model"]): float(row["latency_ms"]) for row in rows if row["device"] in {USB2, USB3}}
    spills = []
    for model, graph in USB_GRAPHS.items():
        if (USB2, model) not in times or (USB3, model) not in times:
            continue
        difference_us = 1e3 * (times[USB2, model] - times[USB3, model])
        streamed = max(0.0, difference_us - INPUT_AND_FIXED_US) * USB2_BYTES_PER_US
        found = plan(graph, EDGE_TPU)
        spill = Spill(model=model, published=streamed, predicted=found.streamed_bytes, noise=0.05 * MIB)
        cells = [f"{difference_us / 1e3:.1f}", pair(streamed, found.streamed_bytes, MIB, 2)]
        print(f"| {model} | {' | '.join(cells)} | {spill.verdict} |")
        spills.append(spill)
    return spills


def graph_of(row: dict[str, str]) -> str | None:
    """The graph that stands for a published row."""
    with (HERE / "rows.csv").open(newline="", encoding="utf-8") as file:
        for rule in csv.DictReader(file):
            if (
                rule["vendor"] in {"", row["vendor"]}
                and rule["device"] in row["device"]
                and rule["published_model"] == row["model"]
                and rule["published_shape"] in {"", row["input_shape"]}
            ):
                return rule["graph"]
    return None


def pair(published: float, predicted: float, unit: int, digits: int = 0) -> str:
    return f"{published / unit:.{digits}f} → {predicted / unit:.{digits}f}"


def count(spills: Iterable[Spill], judge: Callable[[Spill], bool]) -> int:
    return sum(judge(spill) for spill in spills)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("published", type=Path, help="npu_latency_published.csv")
    published = options.parse_args().published
    if not published.is_file():
        sys.exit(f"SKIPPED: {published} is not there")
    with published.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    devices = set(load_profile(STM32).published_device)
    tables = {
        STM32: stm32n6([row for row in rows if row["device"] in devices]),
        f"{EDGE_TPU}, logs": edge_tpu_logs(),
        f"{EDGE_TPU}, buses": edge_tpu_buses(rows),
    }
    print("\n### Does something leave the chip?\n")
    print('| table | rows | leave it | right | false "stays" | false "leaves" |')
    print("|---|--:|--:|--:|--:|--:|")
    wrong = 0
    for name, spills in tables.items():
        false_stays = count(spills, lambda spill: spill.verdict == "FALSE: STAYS")
        wrong += false_stays
        cells = [
            len(spills),
            count(spills, lambda spill: spill.published > spill.noise),
            count(spills, lambda spill: spill.verdict == "right"),
            false_stays,
            count(spills, lambda spill: spill.verdict == "false: leaves"),
        ]
        print(f"| {name} | {' | '.join(map(str, cells))} |")
    if not all(tables.values()):
        sys.exit("a table is empty: the published rows or graphs have other names now")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
