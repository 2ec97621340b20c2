"""Four tenants on one virtual NPU in real time; one of them goes to ten times its share. Do the others wait?

    python benchmarks/serving/noisy_tenant_vnpu.py [--repeats N] [--json OUT.json]

Both sides run in turns against one server: the noisy tenant within its share, and at ten times of it. A third one shows
what the isolation is worth: the same load, with everybody under one name. The quiet tenants' load is the same, to the
instant, on all sides.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import uvloop
from client import Sample, open_loop, outcomes, percentile_ms
from exchanges import oip_binary
from fault_tenants import HEADER
from ours import NPUOPS, OURS
from served_models import ServedModel, make
from server_process import Command, end_with_servers
from subject import Subject, capacity, many_files, running

TENANTS = ("noisy", "one", "two", "three")
USE = 0.6
"""Of their share, that the quiet tenants ask for."""
TIMES = {"1x": 1, "10x": 10, "10x, no tenants": 10}
SLOW = 1000.0
"""Times that the device's memory is slower than the chip's: the model takes many milliseconds then, while this host,
which computes the answers and sends the requests too, has hardly anything to do."""
SECONDS = 10.0
PAUSE_S = 2.0
GOAL = 1.2
"""The others' p99 with the noise, to that without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One side, once."""

    side: str
    p50_ms: float | None
    p99_ms: float | None
    quiet: dict[str, int]
    noisy: dict[str, int]


def start(model: ServedModel, scratch: Path, threads: int) -> Command:
    """A device that is slow enough to be what everybody waits for, and a server that knows the tenants by name.

    To a server that knows none, everybody is the same one.
    """
    config = scratch / "serve.toml"
    config.write_text("".join(f"[tenant.{name}]\n" for name in TENANTS), encoding="utf-8")
    command = OURS["npuops-vnpu"].start(model, scratch, threads)
    *shell, line = command.argv
    up, run = line.split(" && ")
    name = up.split()[up.split().index("--name") + 1]
    slow = shlex.join([str(NPUOPS), "device", "inject", name, "slow_dma", "--factor", str(SLOW)])
    return replace(command, argv=(*shell, f"{up} && {slow} && {run} --config {shlex.quote(str(config))}"))


async def turn(subject: Subject, side: str, per_s: float, seed: int) -> Turn:
    """All four tenants at once; `per_s` is the capacity."""
    share = per_s / len(TENANTS)
    quiet: list[Sample] = []
    noisy: list[Sample] = []
    loads = []
    for number, tenant in enumerate(TENANTS):
        call = subject.call({} if "no tenants" in side else {HEADER: tenant})
        rate, samples = (TIMES[side] * share, noisy) if tenant == "noisy" else (USE * share, quiet)
        loads.append(open_loop(subject.port, lambda call=call: call, rate, SECONDS, samples, seed=seed + number))  # type: ignore[misc]
    await asyncio.gather(*loads)
    await asyncio.sleep(PAUSE_S)  # what still waits of the noise must not meet the next side
    return Turn(
        side=side,
        p50_ms=percentile_ms(quiet, 50),
        p99_ms=percentile_ms(quiet, 99),
        quiet=outcomes(quiet),
        noisy=outcomes(noisy),
    )


async def turns(subject: Subject, repeats: int) -> tuple[float, list[Turn]]:
    """The capacity, and all sides in turns."""
    per_s = await capacity(subject)
    found = []
    for repeat in range(repeats):
        for side in TIMES:
            found.append(await turn(subject, side, per_s, seed=100 * repeat))
            print(f"  {found[-1]}", file=sys.stderr, flush=True)
    return per_s, found


def report(per_s: float, found: list[Turn]) -> bool:
    """Print a table; whether the goal is met."""
    print(f"\ncapacity {per_s:.0f}/s; medians of {len(found) // len(TIMES)} turns; the three quiet tenants together:\n")
    print("| noisy tenant | p50 ms | p99 ms | quiet outcomes | noisy outcomes |\n|---|---|---|---|---|")
    p99 = {}
    for side in TIMES:
        mine = [each for each in found if each.side == side]
        p50, p99[side] = (
            statistics.median(value for each in mine if (value := getattr(each, name)) is not None)
            for name in ("p50_ms", "p99_ms")
        )
        quiet, noisy = (summed([getattr(each, name) for each in mine]) for name in ("quiet", "noisy"))
        print(f"| {side} | {p50:.2f} | {p99[side]:.2f} | {json.dumps(quiet)} | {json.dumps(noisy)} |")
    ratio, without = p99["10x"] / p99["1x"], p99["10x, no tenants"] / p99["1x"]
    met = ratio <= GOAL
    print(f"\np99 of the others, 10x / 1x: {ratio:.2f} (goal {GOAL}: {'met' if met else 'missed'}); ", end="")
    print(f"without tenants: {without:.2f}")
    return met


def summed(counts: list[dict[str, int]]) -> dict[str, int]:
    """Of all turns."""
    return {word: sum(each.get(word, 0) for each in counts) for word in sorted({w for each in counts for w in each})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "npuops-bench-serving")
    options = parser.parse_args()
    many_files()
    end_with_servers()
    peer, model = replace(OURS["npuops-vnpu"], start=start), make("steady", options.scratch / "models")
    with running(peer, model) as (server, scratch):
        subject = Subject(peer=peer, model=model, server=server, scratch=scratch, exchange=oip_binary(model))
        per_s, found = uvloop.run(turns(subject, options.repeats))
    if options.json:
        options.json.write_text(json.dumps({"capacity": per_s, "turns": [asdict(each) for each in found]}, indent=1))
    sys.exit(not report(per_s, found))


if __name__ == "__main__":
    main()
