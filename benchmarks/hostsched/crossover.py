"""Where one decision of the policy is cheapest, for 1 to 4096 candidates: CPU or NPU?

    python benchmarks/hostsched/crossover.py [--counts 1,4,16,64,256,1024,4096] [--turns 15] [--json OUT.json]
                                              [--no-vendors]

Two figures for each place: latency of a decision, and the CPU time that it takes from this host's workload.
Places, in turns so that a busy machine slows all of them:

- `numpy`: float32, in this process.                                                             measured
- `ort-cpu`: INT8, one thread of this process.                                                   measured
- `npu (vnpu:CHIP)`: a virtual NPU in real time, a process of its own. Its latency is the model's, plus the real way
  through the socket. Its numbers are computed on this host by that process: this CPU time a real NPU would not take, so
  it is shown apart.                                                                             modelled
- `qnn-htp`: the emulator of Qualcomm's compiler.                                     emulated, timing means nothing
- `ethos-u`: Vela's estimate of one inference, without any driver.                              vendor-estimate

With `--no-vendors` the last two are left out: at 4096 candidates their compilers take many minutes.

The weights do not matter for time: they are made up.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from made_policy import TRAINED
from made_samples import made_samples
from made_weights import noisy_weights
from npuops.artifacts.folder import opened
from npuops.hostsched.placement import Cost, PlaceCosts, choose, crossover
from npuops.hostsched.placement_trial import decision
from npuops.hostsched.policy_card import PolicyFolder
from npuops.hostsched.scorer import SHAPE
from npuops.hostsched.scorer_session import Scorer, SessionScorer, open_scorer
from npuops.schedlab.build_policy import SHIPPED, build_policy
from npuops.targets.registry import open_target
from npuops.units import Basis
from npuops.vnpu.daemon import Order
from npuops.vnpu.device_switch import up_private
from npuops.vnpu.pacing import Pacing
from npuops.vnpu.profile import load_profile, machine_spec

ETHOS, QNN = "ethos-u:ethos-u85-256", "qnn-htp:sm8650"
COUNTS = "1,4,16,64,256,1024,4096"
EMULATOR_TURNS = 3
LIMIT_US = 5000.0
"""A quarter of the agent's period of 20 ms."""


def processes_of(root: int) -> list[int]:
    """A process and all that it started, by /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it ended meanwhile
    found, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found, grown = found | more, bool(more)
    return sorted(found)


def cpu_us(pids: list[int]) -> float:
    """Of all threads of these processes; the kernel counts nanoseconds."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1000


def turn(decide: Callable[[], object], others: list[int]) -> tuple[float, float, float]:
    """Latency, CPU time of this process, and of the device's: us."""
    before, began_cpu, began = cpu_us(others), time.process_time_ns(), time.perf_counter_ns()
    decide()
    wall, cpu = time.perf_counter_ns() - began, time.process_time_ns() - began_cpu
    return wall / 1000, cpu / 1000, cpu_us(others) - before


def measure(count: int, folder: Path, chip: str, turns: int, *, vendors: bool) -> dict[str, dict[str, object]]:
    """One row of the table: all places for so many candidates, each of whose artifacts takes them at once."""
    targets = {**SHIPPED, f"vnpu:{chip}": {}}
    targets = {name: vendor for name, vendor in targets.items() if open_target(name).probe().available}
    if not vendors:
        targets = {name: vendor for name, vendor in targets.items() if name not in (QNN, ETHOS)}
    if chip != "rk3588":
        targets.pop("vnpu:rk3588", None)
    samples = made_samples(24, 8, 4)
    policy, _ = build_policy(
        folder, noisy_weights(SHAPE, 3), SHAPE, samples, TRAINED, targets=targets, candidates=count
    )
    found: dict[str, dict[str, object]] = {}
    with ExitStack() as stack:
        spec = machine_spec(load_profile(chip))
        record = stack.enter_context(
            up_private(Order(name=f"crossover-{os.getpid()}", spec=spec, pacing=Pacing.REALTIME))
        )
        places: dict[str, tuple[Scorer, Basis]] = {
            "numpy": (open_scorer(policy, "numpy"), Basis.MEASURED),
            "ort-cpu": (open_scorer(policy, "ort-cpu"), Basis.MEASURED),
            f"npu (vnpu:{chip})": (open_scorer(policy, f"npu:crossover-{os.getpid()}"), Basis.MODELLED),
        }
        if QNN in targets:
            places[QNN] = (open_scorer(policy, f"npu:{QNN}"), Basis.EMULATED)
        for scorer, _ in places.values():
            stack.callback(scorer.close)
        rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in places}
        device = processes_of(record.pid)
        for number in range(turns + 2):
            for name, (scorer, basis) in places.items():
                if basis is Basis.EMULATED and number >= EMULATOR_TURNS:
                    continue
                one = turn(decision(scorer, SHAPE, count), device if name.startswith("npu") else [])
                if number >= 2:
                    rows[name].append(one)
        for name, (scorer, basis) in places.items():
            wall, cpu, device_cpu = (statistics.median(column) for column in zip(*rows[name], strict=True))
            found[name] = {"basis": basis.value, "latency_us": wall, "cpu_us": cpu, "device_process_us": device_cpu}
            if isinstance(scorer, SessionScorer) and name.startswith("npu"):
                modelled = scorer.session.modelled()
                found[name] |= {"chip_us": modelled.latency_us, "energy_mj": modelled.energy_mj}
    if ETHOS in targets:
        found[ETHOS] = vela(policy)
    return found


def vela(policy: PolicyFolder) -> dict[str, object]:
    """What Vela printed when it compiled."""
    with opened(policy.root / policy.card.artifacts[ETHOS]) as artifact:
        notes = dict(artifact.manifest.compile.notes)
    return {"basis": Basis.VENDOR_ESTIMATE.value, "latency_us": float(notes.get("inference_us", "nan")), "cpu_us": None}


def show(count: int, places: dict[str, dict[str, object]]) -> None:
    """Rows of a Markdown table."""
    for name, row in places.items():
        note = "emulated, timing means nothing" if row["basis"] == Basis.EMULATED.value else row["basis"]
        cells = [row.get(key) for key in ("latency_us", "cpu_us", "device_process_us")]
        words = " | ".join("" if cell is None else f"{cell:.0f}" for cell in cells)
        energy = f"{row['energy_mj']:.3g}" if "energy_mj" in row else ""
        print(f"| {count} | {name} | {note} | {words} | {energy} |", flush=True)


def verdict(table: dict[int, dict[str, dict[str, object]]]) -> dict[str, object]:
    """What `--placement auto` makes of it, and where NPU and CPU cross."""
    names = [name for name in next(iter(table.values())) if name != ETHOS]
    places = {
        name: PlaceCosts(
            place=name,
            basis=Basis(str(next(iter(table.values()))[name]["basis"])),
            costs=tuple(
                Cost(candidates=count, latency_us=float(row[name]["latency_us"]), cpu_us=float(row[name]["cpu_us"]))  # type: ignore[arg-type]
                for count, row in table.items()
            ),
        )
        for name in names
    }
    npu = next(name for name in names if name.startswith("npu"))
    most = max(table)
    found: dict[str, object] = {
        f"choice at {count}": choose(count, list(places.values()), LIMIT_US).place for count in table
    }
    for cpu in ("numpy", "ort-cpu"):
        found[f"{npu} takes less CPU time than {cpu} from"] = crossover(places[cpu], places[npu], most)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default=COUNTS)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--chip", default="rk3588")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-vendors", action="store_true")
    options = parser.parse_args()
    table = {}
    columns = ["latency us", "CPU us of this process", "CPU us of the device's process", "chip's mJ (modelled)"]
    print(f"| candidates | place | basis | {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for count in sorted({int(word) for word in options.counts.split(",")}):
            table[count] = measure(
                count, Path(scratch) / str(count), options.chip, options.turns, vendors=not options.no_vendors
            )
            show(count, table[count])
    found = verdict(table)
    print()
    for words, value in found.items():
        print(f"{words}: {value}")
    if options.json:
        options.json.write_text(json.dumps({"table": table, "verdict": found}, indent=1))


if __name__ == "__main__":
    main()
