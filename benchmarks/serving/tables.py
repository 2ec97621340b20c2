"""The tables of the comparison, and the goals of issue 4 judged by them.

    python benchmarks/serving/tables.py OUT.json

A figure is the median of a cell's quiet runs (others used less than 0.4 of a core); where no run was quiet, of the half
with the least foreign load. The column `other cores` says which: never compare rows of different foreign load.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

QUIET_CORES = 0.4
Row = dict[str, Any]
OURS = "npuops"
INT8 = "npuops-int8"
TRITON = ("triton-py", "triton-py-d0")
CONCURRENCIES = (1, 8, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A cell: one server, model, protocol and concurrency."""

    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_s_per_1000: float
    foreign_cores: float
    pss_mib: float
    runs: str
    failed: int


class Results:
    """Rows by cell."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)

    def cell(self, model: str, server: str, protocol: str, concurrency: int) -> Figure | None:
        """The figure of a cell, or None where nothing was measured."""
        wanted = (model, server, protocol, concurrency)
        keys = ("model", "server", "protocol", "concurrency")
        found = [row for row in self.rows if "per_s" in row and tuple(row[key] for key in keys) == wanted]
        if not found:
            return None
        quiet = [row for row in found if row.get("foreign_cores", 0) < QUIET_CORES]
        by_load = sorted(found, key=lambda row: float(row.get("foreign_cores", 0)))
        used = quiet or by_load[: max(1, len(by_load) // 2)]

        def middle(key: str) -> float:
            return float(median(row.get(key, 0) for row in used))

        return Figure(
            per_s=middle("per_s"),
            p50_ms=middle("p50_ms"),
            p95_ms=middle("p95_ms"),
            p99_ms=middle("p99_ms"),
            cpu_s_per_1000=middle("cpu_s_per_1000"),
            foreign_cores=middle("foreign_cores"),
            pss_mib=middle("pss_mib"),
            runs=f"{len(quiet)}/{len(found)}",
            failed=sum(row.get("failed", 0) for row in found),
        )

    def names(self, key: str, **like: str) -> list[str]:
        """Different values of a key, in order of appearance, of rows that have those other values."""
        return list(dict.fromkeys(row[key] for row in self.rows if all(row.get(k) == v for k, v in like.items())))

    def rate(self, model: str, server: str, protocol: str, concurrency: int) -> float | None:
        """Requests a second of a cell."""
        cell = self.cell(model, server, protocol, concurrency)
        return cell.per_s if cell else None

    def best(self, model: str, servers: Iterable[str], protocols: Iterable[str], concurrencies: Iterable[int]) -> float:
        """The highest rate among cells; 0 where none was measured."""
        concurrencies, protocols = list(concurrencies), list(protocols)
        return max(
            (
                self.rate(model, server, protocol, count) or 0.0
                for server in servers
                for protocol in protocols
                for count in concurrencies
            ),
            default=0.0,
        )


def print_tables(rows: list[Row]) -> None:
    """Everything as markdown."""
    results = Results(rows)
    for model in results.names("model"):
        print_loops(results, model)
        for protocol in ("binary", "json", "grpc"):
            print_cells(results, model, protocol)
    print_memory(results)
    print_goals(results)
    for server, words in sorted(
        {(row["server"], f"{row['agreement']}, gate {row['gate']}") for row in rows if "agreement" in row}
    ):
        print(f"- {server} against fp32: {words}")
    errors = {
        f"{row['model']} {row['server']} {row['protocol']}: {row['error'][-200:]}" for row in rows if "error" in row
    }
    for error in sorted(errors):
        print(f"- not measured: {error}")


def print_cells(results: Results, model: str, protocol: str) -> None:
    """One table of a model and a protocol: a server each line, fastest first."""
    found = {
        server: {count: results.cell(model, server, protocol, count) for count in CONCURRENCIES}
        for server in results.names("server", model=model, protocol=protocol)
    }
    found = {server: cells for server, cells in found.items() if any(cells.values())}
    if not found:
        return
    counts = [count for count in CONCURRENCIES if any(cells[count] for cells in found.values())]
    head = ["server"]
    for count in counts:
        head += [f"c={count} req/s", "p50/p95/p99 ms"]
    head += [f"CPU s/1k (c={'/'.join(map(str, counts))})", "runs (quiet/all)", "other cores", "failed"]
    print(f"\n#### {model}, {protocol}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    last = counts[-1]
    order = sorted(found, key=lambda server: -(cell.per_s if (cell := found[server][last]) else 0))
    for server in order:
        line = [server]
        for count in counts:
            cell = found[server][count]
            line += [f"{cell.per_s:,.0f}", triple(cell)] if cell else ["–", "–"]
        cells = [cell for count in counts if (cell := found[server][count])]
        line += [
            "/".join(f"{cell.cpu_s_per_1000:.3f}" for cell in cells),
            " ".join(cell.runs for cell in cells),
            f"{median(cell.foreign_cores for cell in cells):.2f}",
            str(sum(cell.failed for cell in cells)),
        ]
        print(f"| {' | '.join(line)} |")


def print_loops(results: Results, model: str) -> None:
    """The engines without a server."""
    print(f"\n#### {model}, in process\n\n| loop | /s | CPU s/1k | runs (quiet/all) | other cores |\n|{'---|' * 5}")
    for name in results.names("server", model=model, protocol="loop"):
        cell = results.cell(model, name, "loop", 1)
        if cell:
            numbers = f"{cell.per_s:,.0f} | {cell.cpu_s_per_1000:.3f} | {cell.runs} | {cell.foreign_cores:.2f}"
            print(f"| {name} | {numbers} |")


def triple(cell: Figure) -> str:
    """p50/p95/p99."""
    return f"{cell.p50_ms:.2f}/{cell.p95_ms:.2f}/{cell.p99_ms:.2f}"


def print_memory(results: Results) -> None:
    """Start-up and memory of each server."""
    models = results.names("model")
    print(f"\n#### start-up and memory\n\n| server | ready s | {' | '.join(f'{m} PSS MiB' for m in models)} |")
    print(f"|---|---|{'---|' * len(models)}")
    for server in results.names("server"):
        rows = [row for row in results.rows if row["server"] == server and "ready_s" in row]
        if rows:
            peaks = [
                max((row.get("pss_mib", 0) for row in rows if row["model"] == model), default=0) for model in models
            ]
            ready = median(row["ready_s"] for row in rows)
            print(f"| {server} | {ready:.1f} | {' | '.join(f'{peak:.0f}' if peak else '–' for peak in peaks)} |")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A sentence of the issue, and how its ratio is made of the results."""

    words: str
    at_least: float
    ours: Callable[[Results], float | None]
    theirs: Callable[[Results], float]


def python_servers(results: Results) -> list[str]:
    """Servers whose front end is Python."""
    return [name for name in results.names("server") if not name.startswith((OURS, "triton", "ort "))]


def cell_goal(words: str, at_least: float, protocol: str, concurrency: int) -> Goal:
    """Ours against the better of both Triton settings, in one cell of the tiny model."""
    return Goal(
        words=words,
        at_least=at_least,
        ours=lambda results: results.rate("tiny", OURS, protocol, concurrency),
        theirs=lambda results: results.best("tiny", TRITON, [protocol], [concurrency]),
    )


def loop_goal(model: str, server: str) -> Goal:
    """Served against the same runner in a loop."""
    return Goal(
        words=f"{model}: {server} ≥ 97 % of the in-process loop of the same runner",
        at_least=0.97,
        ours=lambda results: results.best(model, [server], ["binary"], CONCURRENCIES) or None,
        theirs=lambda results: results.rate(model, f"{server} loop", "loop", 1) or 0.0,
    )


def int8_goal(server: str, other: str) -> Goal:
    """As a user sees it: an INT8 artifact against the same ONNX in ONNX Runtime, each at its best here."""
    return Goal(
        words=f"mobilenet: {server} ≥ 2.5x {other} with fp32 ONNX Runtime",
        at_least=2.5,
        ours=lambda results: results.best("mobilenet", [server], ["binary"], CONCURRENCIES) or None,
        theirs=lambda results: results.best(
            "mobilenet",
            [name for name in results.names("server") if name.startswith(other)],
            ["binary", "json", "grpc"],
            CONCURRENCIES,
        ),
    )


GOALS = (
    cell_goal("tiny, binary, c=32: ≥ 4x Triton's python backend (its better setting)", 4, "binary", 32),
    Goal(
        words="tiny, binary, c=32: ≥ 20x every Python server (each by its faster protocol)",
        at_least=20,
        ours=lambda results: results.rate("tiny", OURS, "binary", 32),
        theirs=lambda results: results.best("tiny", python_servers(results), ["binary", "json", "grpc"], [32]),
    ),
    cell_goal("tiny, JSON, c=32: ≥ 2x Triton's python backend", 2, "json", 32),
    cell_goal("tiny, gRPC, c=32: ≥ 1.5x Triton's python backend", 1.5, "grpc", 32),
    cell_goal("tiny, binary, c=1: not slower than Triton", 1, "binary", 1),
    cell_goal("tiny, JSON, c=1: not slower than Triton", 1, "json", 1),
    cell_goal("tiny, gRPC, c=1: not slower than Triton", 1, "grpc", 1),
    loop_goal("mobilenet", OURS),
    loop_goal("minilm", OURS),
    loop_goal("mobilenet", INT8),
    loop_goal("mobilenet", f"{INT8}-1t"),
    int8_goal(INT8, "triton-py"),
    int8_goal(INT8, "mlserver"),
    int8_goal("npuops-int8-1t", "triton-py"),
    int8_goal("npuops-int8-1t", "mlserver"),
)


def print_goals(results: Results) -> None:
    """Each goal with its ratio; and tiny, binary, c=32 against each Python server by itself."""
    print("\n#### goals of issue 4\n\n| goal | ours /s | theirs /s | ratio | |\n|---|---|---|---|---|")
    for goal in GOALS:
        ours, theirs = goal.ours(results), goal.theirs(results)
        if ours and theirs:
            verdict = "met" if ours / theirs >= goal.at_least else "missed"
            print(f"| {goal.words} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.2f}x | {verdict} |")
        else:
            print(f"| {goal.words} | {ours or 0:,.0f} | {theirs:,.0f} | – | not measured |")
    ours = results.rate("tiny", OURS, "binary", 32)
    if ours is None:
        return
    print("\n| server | tiny at c=32, its faster protocol | npuops binary is |\n|---|---|---|")
    for server in python_servers(results):
        theirs = results.best("tiny", [server], ["binary", "json", "grpc"], [32])
        if theirs:
            print(f"| {server} | {theirs:,.0f} | {ours / theirs:.1f}x |")


if __name__ == "__main__":
    print_tables(json.loads(Path(sys.argv[1]).read_text())["rows"])
