"""Real programs under rivals: a table of what the answering side and the batch side came to.

    python benchmarks/hostsched/programs.py [--loads NAME,…] [--rivals NAME,…] [--repeats 3] [--seconds 10]
                                            [--no-hints] [--save OUTCOMES.jsonl]

Run it as root on an otherwise quiet machine. Rivals take turns within each repeat, in an order that changes, so that a
slow spell of the machine meets all of them. Each play is written as it ends: Ctrl-C loses only the one that runs.
A play in which others took more than a twentieth of the CPUs is marked with `!`.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import signal
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

from npuops.errors import NpuopsError, OptionError, nearest
from npuops.schedlab.outcome import write_json
from npuops.schedlab.program_load import ProgramLoad
from npuops.schedlab.program_outcome import ProgramOutcome
from npuops.schedlab.program_play import Rival, play_program
from npuops.schedlab.program_rivals import left_alone, niced, reserved, under_agent, weighted
from npuops.schedlab.programs import PROGRAMS, program_named
from npuops.schedlab.rivals import ByAgent

AGENTS = ("reactive", "learned")


def rival_named(name: str, *, hints: bool) -> Rival:
    """By its name in the table."""
    fixed = {
        "default": left_alone,
        "nice": niced(-10),
        "autogroup": weighted(-10),
        "reserve": reserved(1000, 4000),
    }
    if name in fixed:
        return fixed[name]
    if name in AGENTS:
        return under_agent(ByAgent(name=name, policy=name, note="the agent"), hints=hints)
    raise OptionError(f"no rival is called {name!r}", advice=nearest(name, (*fixed, *AGENTS)))


def playable(names: str) -> list[ProgramLoad]:
    """The loads; those whose programs are not here are told, and left out."""
    found = []
    for load in PROGRAMS.values() if names == "all" else map(program_named, names.split(",")):
        try:
            load.demand()
        except NpuopsError as error:
            print(f"left out: {error.message}; {error.advice}", file=sys.stderr)
        else:
            found.append(load)
    return found


def row(setting: str, plays: list[ProgramOutcome], defaults: list[ProgramOutcome]) -> str:
    """Medians."""
    slo = median(one.slo_share or 0.0 for one in plays)
    p50, p99, most = (
        median((getattr(one, f"{key}_us") or 0.0) / 1000 for one in plays) for key in ("p50", "p99", "max")
    )
    batch = median(one.batch_per_s for one in plays)
    base = median(one.batch_per_s for one in defaults) if defaults else 0.0
    share = f"{batch / base:6.2f}" if base else "     -"
    dirty = "".join("!" for one in plays if not one.is_clean)
    return (
        f"  {setting:<10} {100 * slo:6.1f} {p50:9.2f} {p99:9.2f} {most:9.2f} {batch:12.4g} {share}"
        f"  {min(one.clean_share for one in plays):.2f} {dirty}"
    )


def main() -> None:
    """As the head of this file says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", default="all")
    parser.add_argument("--rivals", default="default,nice,autogroup,reserve,reactive")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--no-hints", action="store_true")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the agent is ended too
    rivals = {name: rival_named(name, hints=not options.no_hints) for name in options.rivals.split(",")}
    print(f"Linux {platform.release()}, {len(os.sched_getaffinity(0))} CPUs; {options.repeats} x {options.seconds:g} s")
    for load in playable(options.loads):
        found: defaultdict[str, list[ProgramOutcome]] = defaultdict(list)
        for repeat in range(options.repeats):
            order = random.Random(repeat).sample(sorted(rivals), len(rivals))  # noqa: S311 - an order
            for name in order:
                try:
                    outcome = play_program(load, options.seconds, rivals[name], setting=name, seed=repeat)
                except NpuopsError as error:
                    print(f"  {load.name} under {name}: {error.message}; {error.advice}", file=sys.stderr)
                    continue
                found[name].append(outcome)
                if options.save is not None:
                    with options.save.open("ab") as file:
                        file.write(write_json(outcome))
        print(f"\n{load.name}: {load.words}; SLO {load.slo_us / 1000:g} ms")
        unit = next((plays[0].batch_unit for plays in found.values()), "batch")
        print(
            f"  {'':<10} {'SLO %':>6} {'p50 ms':>9} {'p99 ms':>9} {'max ms':>9} {unit + '/s':>12} {'share':>6}  clean"
        )
        for name in rivals:
            if found[name]:
                print(row(name, found[name], found["default"]), flush=True)


if __name__ == "__main__":
    main()
