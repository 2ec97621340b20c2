"""Every server of the comparison in one go, interleaved, and the tables with the goals beside them.

    python benchmarks/serving/run.py [--models tiny,mobilenet,minilm] [--peers npuops,triton-py-d0,…] [--rounds 3]
                                     [--seconds 2] [--json OUT.json] [--threads 1]

A round starts every server once, one after the other, checks one answer for each protocol against ONNX Runtime in this
process, and loads it at each concurrency. Results are kept after each server, so an interrupted run is not lost; give
the same --json again to add rounds to it. The tables are printed at the end, and by `tables.py OUT.json` at any time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from drivers import DriverFailedError, measure
from exchanges import Exchange, differs
from grpc_call import call, grpc
from in_process import artifact_loop, ort_loop
from ours import OURS, BuildFailedError, accuracy, artifacts_beside, fp32_artifact, int8_artifact
from peers import PEERS, Peer
from served_models import MAKERS, ServedModel, make
from server_process import ServerDiedError, ServerProcess, end_with_servers
from subject import running
from tables import print_tables

CELLS = {
    "tiny": {"binary": (1, 8, 32), "json": (1, 8, 32), "grpc": (1, 8, 32)},
    "mobilenet": {"binary": (1, 8), "json": (8,), "grpc": (8,)},
    "minilm": {"binary": (1, 8), "json": (8,), "grpc": (8,)},
}
"""Model → protocol → concurrencies."""
LEAST_SECONDS = {"mobilenet": 4, "minilm": 4}
"""A slow model needs longer for as many samples."""
ONLY: dict[str, set[str]] = {"npuops-int8": {"mobilenet"}, "npuops-int8-1t": {"mobilenet"}, "npuops-vnpu": set()}
"""Servers that take part with some models only: the virtual device is for the faults."""
Row = dict[str, Any]


def main() -> None:
    end_with_servers()
    options = arguments()
    servers = OURS | PEERS
    names = options.peers.split(",") if options.peers else list(servers)
    about = about_run(options.threads)
    rows = earlier_rows(options.json, about)
    first = 1 + max((row["round"] for row in rows), default=0)
    models = [make(name, options.scratch / "models") for name in options.models.split(",")]
    for round_number in range(first, first + options.rounds):
        for model in models:
            rows += limits(model, options.seconds, options.threads, round_number)
            turn = round_number % len(names)
            for name in [*names[turn:], *names[:turn]]:
                if name not in ONLY or model.name in ONLY[name]:
                    rows += measured(servers[name], model, options, round_number)
                    save(options.json, about, rows)
    print_tables(rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MAKERS))
    parser.add_argument("--peers", default="", help="names of peers.py and ours.py; all by default")
    parser.add_argument("--protocols", default="binary,json,grpc")
    parser.add_argument("--concurrency", default="1,8,32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=whole_seconds, default=2, help="of each run; whole ones, 1 or more")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime, in every server")
    parser.add_argument("--json", type=Path, default=Path("serving-results.json"))
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "npuops-bench-serving")
    return parser.parse_args()


def limits(model: ServedModel, seconds: float, threads: int, round_number: int) -> list[Row]:
    """What the engine does without any server, in the same round."""
    folder = artifacts_beside(model)
    found = {"ort loop": ort_loop(model, seconds, threads)}
    try:
        found["npuops loop"] = artifact_loop(fp32_artifact(model, folder, threads), model, seconds)
        if model.name == "mobilenet":
            for name, count in (("npuops-int8 loop", 0), ("npuops-int8-1t loop", 1)):
                artifact = int8_artifact(model, folder, count)
                found[name] = artifact_loop(artifact, model, seconds)
    except BuildFailedError as error:
        print(f"npuops build: {error}", file=sys.stderr)
    for name, loop in found.items():
        print(f"{model.name:10} {name:20} {loop.per_s:10.0f}/s, others {loop.foreign_cores}", flush=True)
    about = {"round": round_number, "model": model.name, "protocol": "loop", "concurrency": 1}
    return [about | {"server": name} | asdict(loop) for name, loop in found.items()]


def measured(peer: Peer, model: ServedModel, options: argparse.Namespace, round_number: int) -> list[Row]:
    """Every cell of one server in one round; what went wrong is a row too."""
    about: Row = {"round": round_number, "model": model.name, "server": peer.name}
    try:
        with running(peer, model, options.threads) as (server, scratch):
            return list(cells(peer, model, server, scratch, options, about))
    except (ServerDiedError, BuildFailedError) as error:
        print(f"{model.name:10} {peer.name:14} {str(error)[-300:]}", file=sys.stderr, flush=True)
        return [about | {"protocol": "", "error": str(error)[-600:]}]


def cells(
    peer: Peer,
    model: ServedModel,
    server: ServerProcess,
    scratch: Path,
    options: argparse.Namespace,
    about: Row,
) -> Iterator[Row]:
    """One row for each protocol and concurrency."""
    wanted = set(map(int, options.concurrency.split(",")))
    about = about | {"ready_s": round(server.ready_s, 2), "idle_pss_mib": server.usage().pss_mib}
    if peer.int8:
        about |= accuracy(int8_artifact(model, artifacts_beside(model)))
    for protocol, make_exchange in peer.exchanges.items():
        if protocol not in CELLS[model.name] or protocol not in options.protocols.split(","):
            continue
        exchange = make_exchange(model)
        why = wrong(server, exchange, model, int8=peer.int8)
        if why:
            print(f"{model.name:10} {peer.name:14} {protocol}: {why}", file=sys.stderr, flush=True)
            yield about | {"protocol": protocol, "error": why}
            continue
        for connections in sorted(wanted & set(CELLS[model.name][protocol])):
            seconds = max(options.seconds, LEAST_SECONDS.get(model.name, 0))
            yield about | cell(server, exchange, connections, seconds, scratch)
            print(f"{model.name:10} {peer.name:14} {protocol:6} c={connections}", flush=True)


def cell(server: ServerProcess, exchange: Exchange, connections: int, seconds: float, scratch: Path) -> Row:
    """One figure: a short warm-up, then the run."""
    found: Row = {"protocol": exchange.protocol, "concurrency": connections}
    try:
        measure(server, exchange, connections, 1, scratch)
        result = measure(server, exchange, connections, seconds, scratch)
    except DriverFailedError as error:
        return found | {"error": str(error)}
    usage, load = server.usage(), result.load
    return found | {
        "per_s": load.per_s,
        "failed": load.failed,
        "p50_ms": load.p50_ms,
        "p95_ms": load.p95_ms,
        "p99_ms": load.p99_ms,
        "cpu_s_per_1000": result.cpu_s_per_1000,
        "foreign_cores": result.foreign_cores,
        "rss_mib": usage.rss_mib,
        "pss_mib": usage.pss_mib,
    }


def wrong(server: ServerProcess, exchange: Exchange, model: ServedModel, *, int8: bool) -> str:
    """Why a server's answer to an exchange is not the right one; "" when it is."""
    if exchange.protocol == "grpc":
        try:
            return differs(exchange, {}, call(server.command.grpc_port, exchange), model.answer, int8=int8)
        except grpc.RpcError as error:
            return str(error)
    connection = http.client.HTTPConnection("127.0.0.1", server.command.http_port, timeout=30)
    try:
        connection.request("POST", exchange.path, body=exchange.body, headers=dict(exchange.headers))
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        return repr(error)
    finally:
        connection.close()
    if response.status != 200:
        return f"status {response.status}: {body[:200]!r}"
    headers = {key.lower(): value for key, value in response.getheaders()}
    return differs(exchange, headers, body, model.answer, int8=int8)


def whole_seconds(text: str) -> int:
    """h2load knows no parts of a second.

    Raises:
        ValueError: it is none.
    """
    seconds = int(text)
    if seconds < 1:
        raise ValueError(text)
    return seconds


def about_run(threads: int) -> Row:
    """What figures must have in common: the machine, its software, and the threads of the engine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpus = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return {
        "schema": "npuops.bench-serving/2",
        "cpu": cpus[0] if cpus else "",
        "cores": len(cpus),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "threads": threads,
    }


def earlier_rows(path: Path, about: Row) -> list[Row]:
    """The rows of a file that is continued.

    Raises:
        SystemExit: they are from another machine, or of other threads: a median over both would mean nothing.
    """
    if not path.is_file():
        return []
    found: Row = json.loads(path.read_text())
    other = {key: (found.get(key), value) for key, value in about.items() if found.get(key) != value}
    if other:
        words = ", ".join(f"{key} {was!r}, now {now!r}" for key, (was, now) in other.items())
        raise SystemExit(f"{path} cannot be continued: {words}; name another --json")
    rows: list[Row] = found["rows"]
    return rows


def save(path: Path, about: Row, rows: list[Row]) -> None:
    """All results so far, with the machine they are from; whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(about | {"date": time.strftime("%Y-%m-%d %H:%M"), "rows": rows}, indent=1))
    part.replace(path)


if __name__ == "__main__":
    main()
