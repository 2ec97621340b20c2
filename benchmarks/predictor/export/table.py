"""graphs.csv: one line per skeleton, kept sorted."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

from spec import Spec

COLUMNS = ("graph", "family", "gmacs", "mparams", "source", "note")


def read_table(path: Path) -> dict[str, dict[str, str]]:
    """The lines of graphs.csv by graph name."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {row["graph"]: row for row in csv.DictReader(file)}


def write_table(path: Path, table: dict[str, dict[str, str]]) -> None:
    """Replace graphs.csv."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table[name] for name in sorted(table))


def inspect_macs(npuops: Path, graph: Path) -> int:
    """MACs of a skeleton as `npuops inspect` counts them; refuses what the reader cannot follow."""
    done = subprocess.run([str(npuops), "inspect", str(graph), "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"npuops inspect failed: {done.stderr.strip() or done.stdout.strip()}")
    report = json.loads(done.stdout)
    if not report["static"] or report["macs"] is None:
        raise ValueError(f"not static or no MACs: {report['ops']}")
    odd = {"If", "Loop", "Scan", "Shape"} & set(report["ops"])
    if odd:
        raise ValueError(f"control flow or run-time shapes left: {odd}")
    return int(report["macs"])


def line(spec: Spec, macs: int, mparams: float) -> dict[str, str]:
    """The line of one skeleton, with its distance from the published figures."""
    notes = [spec.note] if spec.note else []
    if spec.published_gops:
        off = 2 * macs / 1e9 / spec.published_gops - 1
        notes.append(f"published {spec.published_gops:g} GOP: {off:+.1%}")
    if spec.published_mparams:
        off = mparams / spec.published_mparams - 1
        notes.append(f"published {spec.published_mparams:g} M parameters: {off:+.1%}")
    return {
        "graph": spec.name,
        "family": spec.family,
        "gmacs": f"{macs / 1e9:.4f}",
        "mparams": f"{mparams:.3f}",
        "source": spec.source,
        "note": "; ".join(notes),
    }
