"""Half an hour of load with everything going wrong at random, every answer checked: does anything leak, stick or lie?

    python benchmarks/serving/soak.py [--minutes 30] [--seed N] [--json OUT.json]

Ten models (fixed and free batches, two workers, a virtual device beside the processor, a chain, pictures, one that is
swapped, one that is loaded and unloaded, one that sleeps) are asked over HTTP (JSON, binary) and gRPC (calls, streams)
at 70 % of what these clients get out of the server. Meanwhile, by the seed: versions are swapped, workers are killed or
stopped, the device is reset, malformed input arrives on both ports, uploads are tried, clients leave or read slowly.

Exit code 1, and the reasons under `bad`, if an answer was wrong, failed or did not come; if a model was refused that
should be there; if the server wrote of an error, or ended; or if memory grows, or processes, descriptors, shared memory
or files are left over. Refusals for a full queue (503), for a tenant's quota (429), and for a deadline of 5 ms (504)
are counted, and are no failure: a machine that became slower has to shed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from ours import CHIP, NPUOPS, serve
from served_models import make
from server_process import ServerProcess, end_with_servers, free_port
from soak_load import COMES_AND_GOES, Clients
from soak_models import Repository, make_repository
from soak_trouble import Trouble
from soak_watch import Reading, Slope, fitted, fitted_within, left_over, look
from subject import many_files

LOAD = 0.7
WARM_UP_S = 8.0
"""Of load and trouble, before anything is counted: caches fill, libraries are loaded."""
LOOK_S = 1.5
REST_S = 60.0
"""Longest time that the server may take to come to rest."""
WINDOW_S = 300.0
"""The live page keeps so much; until then the front end's memory has to grow."""
SETTLING = 0.2, 0.5
"""Shares of a run after which memory is fitted at the earliest and at the latest: after the window, if it can be."""
MOST_MIB_PER_HOUR = 20.0
MOST_MIB, MOST_OWN_MIB, WINDOW_MIB = 12.0, 5.0, 12.0
"""A leak is what has surely (by the confidence's low end) grown by this rate and by this much, all together or within
the processes of a kind: in 3 minutes noise alone makes 50 MiB an hour."""
TOLD_S = 60.0
WARNINGS = re.compile(
    r"Traceback|never retrieved|was never awaited|\bERROR\b|\bCRITICAL\b|Error:|leaked|ResourceWarning"
)


@contextmanager
def served(models: Path, minutes_limit_s: float = 120.0) -> Iterator[tuple[ServerProcess, Repository, Path, str]]:
    """The device and the server; all is gone afterwards."""
    scratch = Path(tempfile.mkdtemp(prefix="soak-"))
    (scratch / "tmp").mkdir()
    device = f"soak-{scratch.name.rpartition('-')[2].replace('_', '')}"
    repository = make_repository(models, scratch, device)
    command = serve(repository.folder, free_port(), free_port(), "--config", str(repository.config))
    up = shlex.join([str(NPUOPS), "device", "up", CHIP, "--name", device, "--pacing", "realtime"])
    command = replace(
        command,
        argv=("sh", "-c", f"{up} && exec {shlex.join(command.argv)}"),
        env={**command.env, "TMPDIR": str(scratch / "tmp"), "PYTHONWARNINGS": "always::ResourceWarning"},
    )
    server = ServerProcess(command, scratch / "log")
    try:
        server.start(minutes_limit_s)
        yield server, repository, scratch, device
    finally:
        server.stop()
        subprocess.run([str(NPUOPS), "device", "down", device], capture_output=True, check=False)
        shutil.rmtree(scratch, ignore_errors=True)


class Soak:
    """One run."""

    def __init__(self, server: ServerProcess, repository: Repository, scratch: Path, seed: int) -> None:
        self.server = server
        self.repository = repository
        self.scratch = scratch
        self.seed = seed
        ports = server.command.http_port, server.command.grpc_port
        self.clients = Clients(*ports, repository, random.Random(seed))  # noqa: S311 - a soak, no secret
        model = make("tiny", scratch / "malformed")
        self.trouble = Trouble(server, self.clients, repository, model, random.Random(seed + 1))  # noqa: S311 - the same
        self.readings: list[Reading] = []

    async def run(self, seconds: float) -> dict[str, Any]:
        """Warm up, rest, load and trouble until the time is over, rest again."""
        per_s = LOAD * await self.clients.capacity(WARM_UP_S / 2)
        await self.under_load(per_s, WARM_UP_S)
        before = await self.rest()
        began, warm = time.monotonic(), self.clients.tally.arrivals
        watching = asyncio.create_task(self.watch())
        await self.under_load(per_s, seconds)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        came_per_s = (self.clients.tally.arrivals - warm) / (time.monotonic() - began)
        rates = {"wanted /s": round(per_s, 1), "came /s": round(came_per_s, 1)}
        after = await self.rest()
        return {"seed": self.seed, "seconds": seconds} | rates | self.verdict(before, after)

    async def under_load(self, per_s: float, seconds: float) -> None:
        """Load and trouble."""
        stop = asyncio.Event()
        trouble = asyncio.create_task(self.trouble.run(stop))
        await self.clients.run(per_s, seconds)
        stop.set()
        await trouble

    async def watch(self) -> None:
        """Look at the tree again and again, and tell how it goes now and then."""
        began = told = time.monotonic()
        while True:
            now = time.monotonic()
            self.readings.append(await asyncio.to_thread(look, self.server, self.scratch / "tmp", now))
            if now > told + TOLD_S:
                told = now
                tally, course = self.clients.tally, course_of(self.readings[-1], self.server.pid)
                print(f"{now - began:.0f} s: {dict(tally.outcomes)}; {course}", file=sys.stderr)
                print(f"  bad: {dict(self.trouble.bad)} {tally.examples[:3]}", file=sys.stderr, flush=True)
            await asyncio.sleep(LOOK_S)

    async def rest(self) -> list[Reading]:
        """Nobody asks, what may go is gone: three equal counts in a row, or the last ones there were."""
        await self.trouble.ask(f"/v2/repository/models/{COMES_AND_GOES}/unload", "POST", b"{}")
        self.trouble.loaded = False
        await self.clients.rest()
        deadline = time.monotonic() + REST_S
        found: list[Reading] = []
        while time.monotonic() < deadline:
            found.append(await asyncio.to_thread(look, self.server, self.scratch / "tmp", time.monotonic()))
            counts = {(each.processes, each.fds, each.threads, each.shared) for each in found[-4:]}
            if len(found) > 6 and len(counts) == 1:
                break
            await asyncio.sleep(1)
        return found[-4:]

    def verdict(self, before: list[Reading], after: list[Reading]) -> dict[str, Any]:
        """The result, with everything that is wrong in `bad`."""
        tally = self.clients.tally
        settled, filling_mib = self.settled()
        slopes = {"tree, PSS but files": (fitted(settled, "kept_mib"), MOST_MIB + filling_mib)}
        for kind in ("front", "worker", "pictures"):
            slopes[f"{kind}, own"] = fitted_within(settled, kind), MOST_OWN_MIB + filling_mib * (kind == "front")
        bad: dict[str, Any] = dict(self.trouble.bad)
        if failed := tally.outcomes["failed"]:
            bad["requests"] = failed
        for name, (slope, most_mib) in slopes.items():
            if slope and leaks(slope, most_mib):
                bad[f"memory of {name}"] = str(slope)
        bad |= {f"left over: {name}": said for name, said in left_over(before, after).items()}
        if self.server.process is None or self.server.process.poll() is not None:
            bad["the server"] = "ended"
        if lines := self.suspicious():
            bad["the server wrote"] = lines[:20]
        for name in self.repository.questions:
            if not tally.models[name]:
                bad[f"model {name}"] = "never answered"
        for way in self.clients.ways:
            if not tally.ways[way] and not way.startswith("leaves"):
                bad[f"way {way}"] = "was never answered"
        latencies = np.array(tally.latencies_ms)
        return {
            "slope of the whole PSS": str(fitted(settled, "pss_mib")),
            "outcomes": dict(tally.outcomes.most_common()),
            "held back": tally.held_back,
            "answered by way": dict(tally.ways.most_common()),
            "answered by model": dict(tally.models.most_common()),
            "p50/p99/longest ms": [round(float(np.percentile(latencies, q)), 2) for q in (50, 99, 100)]
            if len(latencies)
            else None,
            "events": dict(self.trouble.events),
            "slopes": {name: str(slope) for name, (slope, _) in slopes.items()},
            "course": [course_of(each, self.server.pid) for each in self.readings[:: max(1, len(self.readings) // 30)]],
            "at rest": {"before": counts_of(before), "after": counts_of(after)},
            "failures by kind": dict(tally.kinds.most_common(20)),
            "examples of failures": tally.examples,
            "bad": bad,
        }

    def settled(self) -> tuple[list[Reading], float]:
        """The readings that are fitted, and the MiB that the live page's window may still take in them."""
        if not self.readings:
            return [], 0.0
        began, ended = self.readings[0].at_s, self.readings[-1].at_s
        earliest, latest = (share * (ended - began) for share in SETTLING)
        from_s = began + min(max(WINDOW_S, earliest), latest)
        filling = max(0.0, 1 - (from_s - began) / WINDOW_S)
        return [each for each in self.readings if each.at_s >= from_s], WINDOW_MIB * filling

    def suspicious(self) -> list[str]:
        """Lines of the server's log that tell of a defect."""
        lines = self.server.log.read_text(errors="replace").splitlines() if self.server.log.is_file() else []
        return [line[:300] for line in lines if WARNINGS.search(line)]


def leaks(slope: Slope, most_mib: float) -> bool:
    """Whether this much more memory is no noise any more."""
    return slope.low > MOST_MIB_PER_HOUR and slope.surely_grown_mib > most_mib


def course_of(reading: Reading, front: int) -> str:
    """One reading as a line."""
    own = reading.own_mib.get((front, "front"), 0.0)
    counts = f"{reading.processes} processes, {reading.fds} descriptors, {reading.shared} segments"
    return f"PSS {reading.pss_mib:.0f} MiB, {reading.kept_mib:.1f} no file, {own:.1f} the front's; {counts}"


def counts_of(readings: list[Reading]) -> dict[str, float]:
    """The least of what was seen at rest."""
    names = ("processes", "front_fds", "fds", "threads", "shared", "shared_mib", "files", "kept_mib", "pss_mib")
    return {name: round(min(getattr(each, name) for each in readings), 1) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "npuops-bench-serving")
    parser.add_argument("--keep-log", type=Path, help="where the server's log goes")
    options = parser.parse_args()
    many_files()
    end_with_servers()
    with served(options.scratch / "soak") as (server, repository, scratch, device):
        soak = Soak(server, repository, scratch, options.seed)
        soak.trouble.device = device
        result = uvloop.run(soak.run(60 * options.minutes))
        if options.keep_log:
            options.keep_log.write_bytes(server.log.read_bytes())
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    sys.exit(1 if result["bad"] else 0)


if __name__ == "__main__":
    main()
