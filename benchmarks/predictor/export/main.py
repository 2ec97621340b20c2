"""Export skeletons: python benchmarks/predictor/export/main.py [--force] [NAME...] (a name may be a glob)."""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import os
import time
import traceback
from pathlib import Path

from skeleton import export_skeleton
from spec import Spec
from table import inspect_macs, line, read_table, write_table

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent
NPUOPS = FOLDER.parents[1] / ".venv" / "bin" / "npuops"


def all_specs() -> dict[str, Spec]:
    """Every skeleton that the zoo modules beside this file offer."""
    specs: dict[str, Spec] = {}
    for path in sorted(HERE.glob("zoo_*.py")):
        for spec in importlib.import_module(path.stem).specs():
            if spec.name in specs:
                raise ValueError(f"two skeletons named {spec.name}")
            specs[spec.name] = spec
    return specs


def make(spec: Spec, npuops: Path) -> bool:
    """Export one skeleton and put it into graphs.csv; False when it failed (nothing is left behind)."""
    started = time.monotonic()
    target = FOLDER / "graphs" / f"{spec.name}.onnx"
    draft = FOLDER / f".draft-{os.getpid()}.onnx"
    try:
        mparams = export_skeleton(spec, draft)
        macs = inspect_macs(npuops, draft)
    except Exception as problem:  # noqa: BLE001 - one bad network must not stop the others
        draft.unlink(missing_ok=True)
        print(f"FAILED {spec.name}: {type(problem).__name__}: {str(problem)[:600]}")
        print("   ", traceback.format_tb(problem.__traceback__)[-1].strip().replace("\n", " "))
        return False
    draft.replace(target)
    table = read_table(FOLDER / "graphs.csv")
    table[spec.name] = line(spec, macs, mparams)
    write_table(FOLDER / "graphs.csv", table)
    size = target.stat().st_size / 1024
    row = table[spec.name]
    print(f"{spec.name}: {row['gmacs']} GMACs, {row['mparams']} M, {size:.0f} KB, {time.monotonic() - started:.0f} s")
    print(f"    {row['note']}", flush=True)
    return True


def prune(known: set[str]) -> None:
    """Drop graphs and lines without a spec, and lines without a graph."""
    table = read_table(FOLDER / "graphs.csv")
    for path in sorted((FOLDER / "graphs").glob("*.onnx")):
        if path.stem not in known:
            path.unlink()
    left = {path.stem for path in (FOLDER / "graphs").glob("*.onnx")}
    write_table(FOLDER / "graphs.csv", {name: row for name, row in table.items() if name in left})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["*"], help="names or globs; all when left out")
    parser.add_argument("--force", action="store_true", help="export again what is there already")
    parser.add_argument("--npuops", type=Path, default=NPUOPS, help="the npuops command that checks each graph")
    parser.add_argument("--prune", action="store_true", help="remove graphs that no module offers any more")
    args = parser.parse_args()
    if args.prune:
        prune(set(all_specs()))
        return 0
    done = read_table(FOLDER / "graphs.csv")
    failed = 0
    for name, spec in all_specs().items():
        wanted = any(fnmatch.fnmatchcase(name, pattern) for pattern in args.names)
        if wanted and (args.force or name not in done):
            failed += not make(spec, args.npuops)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
