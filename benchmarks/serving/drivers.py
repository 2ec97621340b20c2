"""The load of the comparison: wrk for HTTP and h2load for gRPC, closed loop, at a fixed number of connections.

Both are C programs that take little of the machine; the CPU time of the server's tree, of the client and of everybody
else is read around each run, because a figure from a busy machine says little.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from exchanges import Exchange
from numpy.typing import NDArray
from server_process import ServerProcess, busy_seconds

LUA = """
local file = io.open("{body}", "rb")
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
{headers}
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{{"requests": %d, "us": %d, "failed": %d, "p50": %.1f, "p95": %.1f, "p99": %.1f}}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
"""
GRACE_S = 90
"""How much longer than asked a driver may take before it counts as hung."""


class DriverFailedError(RuntimeError):
    """wrk or h2load said something that is no result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One run of a driver."""

    requests: int
    seconds: float
    failed: int
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @property
    def per_s(self) -> float:
        """Answered requests each second."""
        return (self.requests - self.failed) / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run, and what it cost the machine."""

    load: Load
    server_cpu_s: float
    client_cpu_s: float
    foreign_cores: float
    """Cores that neither the server nor the client used, on average."""

    @property
    def cpu_s_per_1000(self) -> float:
        """CPU seconds of the server's tree for 1,000 requests."""
        return 1000 * self.server_cpu_s / max(self.load.requests, 1)


def measure(server: ServerProcess, exchange: Exchange, connections: int, seconds: float, scratch: Path) -> Measured:
    """Load a server for a while.

    Raises:
        DriverFailedError: the driver did not end with a result.
    """
    drive = h2load if exchange.protocol == "grpc" else wrk
    port = server.command.grpc_port if exchange.protocol == "grpc" else server.command.http_port
    client = resource.getrusage(resource.RUSAGE_CHILDREN)
    tree, busy, began = server.cpu_s(), busy_seconds(), time.monotonic()
    load = drive(port, exchange, connections, seconds, scratch)
    wall, busy, tree = time.monotonic() - began, busy_seconds() - busy, server.cpu_s() - tree
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    driver = after.ru_utime + after.ru_stime - client.ru_utime - client.ru_stime
    return Measured(
        load=load,
        server_cpu_s=tree,
        client_cpu_s=driver,
        foreign_cores=round((busy - tree - driver) / wall, 2),
    )


def wrk(port: int, exchange: Exchange, connections: int, seconds: float, scratch: Path) -> Load:
    """HTTP/1.1, one thread; statuses of 400 and above count as failed."""
    body = scratch / f"{exchange.protocol}.body"
    body.write_bytes(exchange.body)
    lines = "\n".join(f'wrk.headers["{key}"] = "{value}"' for key, value in exchange.headers.items())
    script = scratch / f"{exchange.protocol}.lua"
    script.write_text(LUA.format(body=body, headers=lines))
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "--timeout", "30s", "-s", str(script)]
    said = run([*argv, f"http://127.0.0.1:{port}{exchange.path}"], seconds)
    found = [line for line in said.splitlines() if line.startswith('{"requests"')]
    if not found:
        raise DriverFailedError(f"wrk: {said[-500:]}")
    result = json.loads(found[-1])
    return Load(
        requests=result["requests"],
        seconds=result["us"] / 1e6,
        failed=result["failed"],
        p50_ms=result["p50"] / 1000,
        p95_ms=result["p95"] / 1000,
        p99_ms=result["p99"] / 1000,
    )


def h2load(port: int, exchange: Exchange, connections: int, seconds: float, scratch: Path) -> Load:
    """gRPC as bare HTTP/2: one stream at a time on each connection.

    A call that fails has status 200 all the same, and no message: the bytes of DATA tell how many were answered, each
    answer being as long as that to one call alone.
    """
    body = scratch / "grpc.body"
    body.write_bytes(exchange.body)
    log = scratch / "h2load.log"
    log.unlink(missing_ok=True)
    headers = [f"-H{key}: {value}" for key, value in exchange.headers.items()]
    argv = ["h2load", "-t1", "-m1", f"-c{connections}", f"-D{seconds:g}s", f"-d{body}", f"--log-file={log}", *headers]
    said = run([*argv, f"http://127.0.0.1:{port}{exchange.path}"], seconds)
    rows = [line.split("\t") for line in log.read_text().splitlines()] if log.is_file() else []
    if not rows:
        raise DriverFailedError(f"h2load: {said[-500:]}")
    table: NDArray[np.int64] = np.array(rows, np.int64)
    common = [f"-d{body}", *headers, f"http://127.0.0.1:{port}{exchange.path}"]
    alone = answered_bytes(run(["h2load", "-t1", "-m1", "-c1", "-n1", *common], seconds))
    whole = round(answered_bytes(said) / alone) if alone else 0
    failed = max(int((table[:, 1] != 200).sum()), len(table) - whole)
    p50, p95, p99 = np.percentile(table[:, 2], (50, 95, 99)) / 1000
    return Load(
        requests=len(table),
        seconds=seconds,
        failed=failed,
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
    )


def answered_bytes(said: str) -> int:
    """Of DATA, in h2load's summary."""
    found = re.search(r"\((\d+)\) data", said)
    return int(found.group(1)) if found else 0


def run(argv: list[str], seconds: float) -> str:
    """What a driver printed.

    Raises:
        DriverFailedError: it is not installed, hangs, or ends with an error.
    """
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=seconds + GRACE_S)
    except FileNotFoundError as error:
        raise DriverFailedError(f"{argv[0]} is not installed (Debian: wrk, nghttp2-client)") from error
    except subprocess.TimeoutExpired as error:
        raise DriverFailedError(f"{argv[0]} did not end within {seconds + GRACE_S} s") from error
    if done.returncode:
        raise DriverFailedError(f"{argv[0]} ended with {done.returncode}: {done.stderr[-300:] or done.stdout[-300:]}")
    return done.stdout
