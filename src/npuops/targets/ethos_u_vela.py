"""Runs Vela and reads what it wrote: placement with its reasons, the performance summary, cycles per layer."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from npuops.errors import CompileError
from npuops.models.placement import Placement, RunsOn
from npuops.models.tflite_file import read_tflite
from npuops.targets.child import WORDS_KEPT
from npuops.targets.ethos_u_configs import CONFIG_FILE, Configuration
from npuops.targets.protocol import OpCost

PLAIN: Final = "model.tflite"
COMPILED: Final = "model_vela.tflite"
PER_LAYER: Final = "model_per-layer.csv"
IO: Final = "model.io.json"

_REFUSAL = re.compile(r"operator: (?P<op>\S+), ofm: '(?P<name>.*)'")
_KIBIBYTE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class VelaResult:
    """What Vela decided and estimated."""

    placement: tuple[Placement, ...]
    notes: Mapping[str, str]
    words: str


def run_vela(folder: Path, configuration: Configuration, options: Mapping[str, str]) -> VelaResult:
    """Compile `folder/model.tflite` into `folder/model_vela.tflite`. The caller sets the time limit.

    Raises:
        CompileError: Vela refused or failed; its words are in the message.
    """
    chosen = {"system-config": configuration.system_config, "memory-mode": configuration.memory_mode, **options}
    command = [
        *(sys.executable, "-m", "ethosu.vela", str(folder / PLAIN)),
        *("--accelerator-config", configuration.accelerator),
        *("--config", CONFIG_FILE),
        *("--output-dir", str(folder)),
        *("--verbose-performance", "--show-cpu-operations"),
    ]
    for name, value in sorted(chosen.items()):
        command += [f"--{name}", value]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603 - a list of our own making, checked options
    words = (done.stdout + done.stderr).strip()
    summary = folder / f"model_summary_{chosen['system-config']}.csv"
    made = [folder / COMPILED, folder / PER_LAYER, summary]
    missing = [path.name for path in made if not path.exists()]
    if done.returncode != 0 or missing:
        why = f"ended with status {done.returncode}" if done.returncode else f"wrote no {', '.join(missing)}"
        raise CompileError(
            f"vela {why}; it said:\n{words[-WORDS_KEPT:]}",
            advice="the last lines name the cause; `npuops check` names operators that do not fit",
        )
    notes = _notes(summary, configuration, chosen)
    summary.unlink()
    placement = _placement(folder / PER_LAYER, words, _made(folder / PLAIN))
    return VelaResult(placement=placement, notes=notes, words=words[-WORDS_KEPT:])


def _made(plain: Path) -> set[str]:
    """Names of the tensors that operators of the TFLite file make."""
    graph = read_tflite(plain)
    return {graph.tensors[index].name for operator in graph.operators for index in operator.outputs}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _notes(summary: Path, configuration: Configuration, chosen: Mapping[str, str]) -> dict[str, str]:
    """The figures that matter, with units in their names; times are Vela's model, not a measurement."""
    row = _rows(summary)[0]
    memory = {
        f"{name}_bytes": str(round(float(row[f"{name}_memory_used"]) * _KIBIBYTE))
        for name in ("sram", "dram", "on_chip_flash", "off_chip_flash")
    }
    return {
        "accelerator_config": configuration.accelerator,
        "config_file": CONFIG_FILE,
        "system_config": chosen["system-config"],
        "memory_mode": chosen["memory-mode"],
        "core_clock_hz": str(round(float(row["core_clock"]))),
        "inference_us": f"{float(row['inference_time']) * 1e6:.3f}",
        "inference_basis": "vendor-estimate",
        "cycles": row["cycles_total"],
        "cycles_npu": row["cycles_npu"],
        "cycles_sram_access": row["cycles_sram_access"],
        "cycles_dram_access": row["cycles_dram_access"],
        **memory,
        "macs": row["nn_macs"],
        "weights_bytes": row["total_original_weights"],
        "weights_encoded_bytes": row["total_npu_encoded_weights"],
    }


def _placement(per_layer: Path, words: str, made: set[str]) -> tuple[Placement, ...]:
    """One entry for each operator of the TFLite file that Vela lists.

    Vela cuts some into many commands (a softmax: 28) with tensors of their own, which are not in `made`: counted as
    operators, they would hide what runs on the CPU.
    """
    reasons = _reasons(words)
    placed: dict[tuple[str, str], Placement] = {}
    for row in _rows(per_layer):
        name, op = row["Name"].strip(), row["Original Operator"].strip()
        if name not in made:
            continue
        if row["Target"].strip() == "NPU":
            entry = Placement(name=name, op=op, runs_on=RunsOn.NPU, rule="vela placed it on the NPU")
        else:
            rule = reasons.get(name, "vela left it to the CPU without a reason")
            entry = Placement(name=name, op=op, runs_on=RunsOn.CPU, rule=rule, found=op)
        placed.setdefault((name, op), entry)
    return tuple(placed.values())


def _reasons(words: str) -> dict[str, str]:
    """Output tensor → Vela's reason for the CPU, from its warnings."""
    reasons: dict[str, str] = {}
    name = ""
    for line in words.splitlines():
        found = _REFUSAL.search(line)
        if found is not None:
            name = found["name"]
        elif not line.strip():
            name = ""
        elif name:
            text = line.strip().removeprefix("Reason:").lstrip("- ").strip()
            reasons[name] = f"{reasons[name]}; {text}" if name in reasons else text
    return reasons


def layer_costs(per_layer: Path) -> tuple[OpCost, ...]:
    """Cycles of each operator in execution order. Vela estimates nothing for the CPU: those have cost 0."""
    return tuple(
        OpCost(
            name=row["Name"].strip(),
            op=row["NNG Operator"].strip(),
            runs_on=RunsOn.NPU if row["Target"].strip() == "NPU" else RunsOn.CPU,
            cost=float(row["Op Cycles"]),
        )
        for row in _rows(per_layer)
    )
