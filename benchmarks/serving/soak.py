"""Half an hour of load with everything going wrong at random, every answer checked: does anything leak, stick or lie?

    python benchmarks/serving/soak.py [npuops|triton-py-d0] [--minutes 30] [--json OUT.json]

A repository with three models takes 70 % of what this client can get out of it. Meanwhile, by a seed:
one model is loaded and unloaded, workers are killed, malformed input arrives, clients leave in the middle. It ends with
exit code 1 if an answer was wrong or failed, a request got stuck, malformed input was taken or blamed on the server, or
memory grows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from client import RIGHTLY, Call, Sample, closed_loop, open_loop
from exchanges import differs, oip_binary, oip_json
from fault_malformed import oip_cases, raw
from ours import OURS, artifacts_beside, fp32_artifact, serve
from peers import PEERS, triton, triton_version
from served_models import ServedModel, make
from server_process import Command, ServerProcess, end_with_servers, free_port, memory_mib
from subject import many_files, running

LOAD = 0.7
MOST_PER_S = 3000.0
STABLE = ("tiny", "steady")
COMES_AND_GOES = "extra"
UNLOADED = frozenset({404, 503})
GOOD_WORDS = {"closed", "reset", "closed, while sending", "reset, while sending"}
SLOPE_MIB_PER_HOUR = 20.0
"""Of the front end's resident set, after the first third: below it, nothing leaks (a noise of 1 MiB in 3 minutes)."""
EVERY_S = {"repository": 6.0, "kill": 20.0, "malformed": 1.0, "leave": 0.5, "memory": 2.0}
"""Mean time between two events of a kind."""


@dataclass
class Tally:
    """Counts samples: half an hour of them is too much to keep."""

    outcomes: Counter[str] = field(default_factory=Counter)
    latencies_ms: array[float] = field(default_factory=lambda: array("f"))

    def append(self, sample: Sample, /) -> None:
        self.outcomes[sample.outcome] += 1
        if sample.outcome == "ok":
            self.latencies_ms.append(1000 * sample.latency_s)


class Soak:
    """One run."""

    def __init__(self, server: ServerProcess, models: dict[str, ServedModel], pattern: str, seed: int) -> None:
        self.server = server
        self.models = models
        self.pattern = pattern
        self.port = server.command.http_port
        self.chance = random.Random(seed)  # noqa: S311 - a soak, no secret
        self.calls = [call for name in models for call in self.calls_of(name)]
        self.events: Counter[str] = Counter()
        self.bad_words: Counter[str] = Counter()
        self.memory: list[tuple[float, float, float]] = []
        """Seconds, resident MiB of the front end, proportional MiB of the tree."""

    def calls_of(self, name: str) -> list[Call]:
        """A model in JSON and binary."""
        model = self.models[name]
        refusals = UNLOADED if name == COMES_AND_GOES else frozenset[int]()
        found = []
        for exchange in (oip_json(model), oip_binary(model)):

            def judge(answer: Any, exchange: Any = exchange) -> str:
                return differs(exchange, answer.headers, answer.body, model.answer, int8=False)

            found.append(Call(exchange.http_bytes(f"h:{self.port}"), judge, refusals))
        return found

    def call(self) -> Call:
        """Any of them."""
        return self.chance.choice(self.calls)

    async def run(self, seconds: float) -> dict[str, Any]:
        """Load and trouble until the time is over."""
        warm, tally = Tally(), Tally()
        stop = asyncio.Event()
        load = asyncio.create_task(closed_loop(self.port, self.call, 16, stop, warm))
        await asyncio.sleep(4)
        stop.set()
        await load
        per_s = min(LOAD * warm.outcomes["ok"] / 4, MOST_PER_S)
        troubles = (self.repository, self.kill, self.malformed, self.leave, self.look)
        tasks = [asyncio.create_task(self.often(kind, do)) for kind, do in zip(EVERY_S, troubles, strict=True)]
        await open_loop(self.port, self.call, per_s, seconds, tally, limit_s=15)
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        crashed = [repr(result) for result in done if isinstance(result, Exception)]
        return self.verdict(per_s, tally, crashed)

    async def often(self, kind: str, do: Callable[[], Any]) -> None:
        """Again and again, at random intervals."""
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / EVERY_S[kind]))
            self.events[kind] += 1
            await do()

    async def repository(self) -> None:
        """Load or unload the model that comes and goes."""
        word = self.chance.choice(("load", "unload"))
        path = f"/v2/repository/models/{COMES_AND_GOES}/{word}"
        status = await asyncio.to_thread(self.server.get, path, "POST", b"{}")
        if status != 200:
            self.bad_words[f"{word} answered {status}"] += 1

    async def kill(self) -> None:
        """SIGKILL of the worker that worked most."""
        pid = await asyncio.to_thread(self.server.worker, self.pattern)
        if pid:
            os.kill(pid, signal.SIGKILL)

    async def malformed(self) -> None:
        """One case out of the table; refused by a status of 4xx, or the connection is closed."""
        cases = [case for case in oip_cases(self.models["tiny"], self.port) if case[0] != "200 MB body"]
        name, data = self.chance.choice(cases)
        said = await raw(self.port, data)
        if said not in GOOD_WORDS and not said.startswith("4"):
            self.bad_words[f"malformed ({name}): {said}"] += 1

    async def leave(self) -> None:
        """A client that goes away after half a request, or before its answer."""
        data = self.call().data
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data if self.chance.random() < 0.5 else data[: len(data) // 2])
        await asyncio.sleep(self.chance.random() * 0.01)
        writer.transport.abort()

    async def look(self) -> None:
        """Memory now."""
        resident = memory_mib(self.server.pid)["Rss"]
        tree = await asyncio.to_thread(self.server.usage)
        self.memory.append((time.monotonic(), resident, tree.pss_mib))

    def slopes(self) -> tuple[float, float]:
        """MiB an hour of the front end's resident set and of the tree's proportional set, after the first third."""
        rows = np.array(self.memory[len(self.memory) // 3 :])
        if len(rows) < 3:
            return 0.0, 0.0
        hours = (rows[:, 0] - rows[0, 0]) / 3600
        front, tree = (float(np.polyfit(hours, rows[:, column], 1)[0]) for column in (1, 2))
        return round(front, 1), round(tree, 1)

    def verdict(self, per_s: float, tally: Tally, crashed: list[str]) -> dict[str, Any]:
        """The result, with everything that is wrong in `bad`."""
        front, tree = self.slopes()
        bad = {k: v for k, v in tally.outcomes.items() if k not in {"ok", RIGHTLY}}
        bad |= dict(self.bad_words)
        bad |= dict.fromkeys(crashed, 1)
        if self.server.process is None or self.server.process.poll() is not None:
            bad["the server ended"] = 1
        if front > SLOPE_MIB_PER_HOUR and self.grew() > 2:
            bad["memory grows, MiB/h"] = round(front)
        latencies = np.array(tally.latencies_ms)
        return {
            "load /s": round(per_s),
            "answers": dict(tally.outcomes),
            "events": dict(self.events),
            "p50 ms": round(float(np.percentile(latencies, 50)), 2) if len(latencies) else None,
            "p99 ms": round(float(np.percentile(latencies, 99)), 2) if len(latencies) else None,
            "front end RSS MiB": [round(row[1]) for row in self.memory[:: max(1, len(self.memory) // 8)]],
            "tree PSS MiB": [round(row[2]) for row in self.memory[:: max(1, len(self.memory) // 8)]],
            "front end MiB/h": front,
            "tree MiB/h": tree,
            "bad": bad,
        }

    def grew(self) -> float:
        """MiB between the second third and the last, by medians."""
        third = max(len(self.memory) // 3, 1)
        resident = [row[1] for row in self.memory]
        return float(np.median(resident[-third:]) - np.median(resident[third : 2 * third] or resident[:1]))


def npuops(models: dict[str, ServedModel], scratch: Path) -> Command:
    """`npuops serve` of a repository with one version of each model."""
    for name, model in models.items():
        source = models["tiny"] if name == COMES_AND_GOES else model
        shutil.copytree(fp32_artifact(source, artifacts_beside(source)), scratch / "repository" / name / "1")
    return serve(scratch / "repository", free_port(), free_port())


def triton_py(models: dict[str, ServedModel], scratch: Path) -> Command:
    """Triton with the same models: it does not start a killed worker again, so only its memory and manners compare."""
    command = triton(0)(models["tiny"], scratch, 1)
    others = [name for name in models if name != "tiny"]
    for name in others:
        triton_version(scratch / "repository", models[name], 1, 0, version="1")
    return replace(command, argv=(*command.argv, *(f"--load-model={name}" for name in others)))


SERVERS = {"npuops": (OURS["npuops"], npuops), "triton-py-d0": (PEERS["triton-py-d0"], triton_py)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", nargs="?", default="npuops", choices=SERVERS)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "npuops-bench-serving")
    options = parser.parse_args()
    many_files()
    end_with_servers()
    models = {name: make(name, options.scratch / "models") for name in STABLE}
    models[COMES_AND_GOES] = replace(models["tiny"], name=COMES_AND_GOES)
    known, start = SERVERS[options.server]
    peer = replace(known, start=lambda _model, scratch, _threads: start(models, scratch))
    with running(peer, models["tiny"]) as (server, _):
        soak = Soak(server, models, peer.worker, options.seed)
        result = uvloop.run(soak.run(60 * options.minutes))
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    sys.exit(1 if result["bad"] else 0)


if __name__ == "__main__":
    main()
