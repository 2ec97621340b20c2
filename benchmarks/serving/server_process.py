"""A server as a tree of processes: started, awaited, its CPU time and memory read, and ended whole.

Every process of the tree carries a mark in its environment, so those that detach themselves (Ray's daemons) are found
too.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
MARK = "NPUOPS_BENCH_TREE"
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How to start a server, and how to see that it is ready."""

    argv: tuple[str, ...]
    http_port: int
    grpc_port: int = 0
    ready: str
    """Path that answers 200 when requests are welcome."""
    env: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a tree has taken so far."""

    cpu_s: float
    rss_mib: float
    pss_mib: float
    processes: int


class ServerDiedError(RuntimeError):
    """A server that ended by itself, or never became ready; with the end of its log."""


class ServerProcess:
    """One running server."""

    def __init__(self, command: Command, log: Path) -> None:
        self.command = command
        self.mark = uuid.uuid4().hex
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.ready_s = 0.0

    @property
    def pid(self) -> int:
        """Of the process that was started; 0 before."""
        return self.process.pid if self.process else 0

    def start(self, limit_s: float = 90.0) -> None:
        """Start, and wait until it says that it is ready.

        Raises:
            ServerDiedError: it ended, or was not ready in time.
        """
        began = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command.argv,
                env={**os.environ, **self.command.env, MARK: self.mark},
                cwd=self.command.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() - began > limit_s:
                self.stop()
                raise ServerDiedError(f"{self.command.argv[0]} is not ready: {self.last_words()}")
            time.sleep(0.02)
        self.ready_s = time.monotonic() - began

    def is_ready(self) -> bool:
        """Whether the ready path answers 200."""
        try:
            return self.get(self.command.ready) == 200
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path: str, method: str = "GET", body: bytes | None = None) -> int:
        """The status of one small HTTP request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.command.http_port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers={"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            response.read()
            return response.status

    def last_words(self, size: int = 1500) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-size:] if self.log.is_file() else ""

    def pids(self) -> list[int]:
        """Every living process of the tree, the first one first."""
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    if wanted in (folder / "environ").read_bytes().split(b"\0"):
                        found.append(int(folder.name))
        return sorted(found, key=lambda pid: (pid != self.pid, pid))

    def usage(self) -> Usage:
        """CPU seconds and memory of the tree now."""
        cpu = rss = pss = 0.0
        pids = self.pids()
        for pid in pids:
            with contextlib.suppress(OSError, IndexError):
                cpu += cpu_seconds(pid)
                memory = memory_mib(pid)
                rss += memory["Rss"]
                pss += memory["Pss"]
        return Usage(cpu_s=cpu, rss_mib=round(rss, 1), pss_mib=round(pss, 1), processes=len(pids))

    def cpu_s(self) -> float:
        """CPU seconds alone: reading the memory of big processes takes time itself."""
        total = 0.0
        for pid in self.pids():
            with contextlib.suppress(OSError, IndexError):
                total += cpu_seconds(pid)
        return total

    def worker(self, pattern: str, span_s: float = 0.3) -> int:
        """The process that runs the model: of those whose command line matches, the busiest one; 0 for none.

        Busy is who works now: a spare process has loaded the same libraries, and may have taken more time in all.
        """
        matching = []
        for pid in self.pids() if pattern else []:
            with contextlib.suppress(OSError):
                if re.search(pattern, command_line(pid)):
                    matching.append(pid)
        before = cpu_each(matching)
        if len(matching) > 1:
            time.sleep(span_s)
        after = cpu_each(matching)
        return max(after, key=lambda pid: (after[pid] - before.get(pid, 0.0), after[pid]), default=0)

    def stop(self) -> None:
        """End the whole tree: politely, then not."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline and self.process.poll() is None:
            time.sleep(0.05)
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def end_with_servers() -> None:
    """Let SIGTERM unwind this script, so that it ends the servers that it started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def command_line(pid: int) -> str:
    """A process's arguments, blank separated."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()


def cpu_seconds(pid: int) -> float:
    """User and system time of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def cpu_each(pids: Iterable[int]) -> dict[int, float]:
    """Of those that are still there."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            found[pid] = cpu_seconds(pid)
    return found


def memory_mib(pid: int) -> dict[str, float]:
    """Resident set, and its proportional share where pages are shared."""
    found = {"Rss": 0.0, "Pss": 0.0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in found:
            found[key] = int(rest.split()[0]) / 1024
    return found


def busy_seconds() -> float:
    """Seconds that all cores of this machine spent on anything but waiting, and on other guests (steal)."""
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / TICKS


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
