"""What goes wrong during the soak, at random instants, and what must come of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import grpc
from fault_malformed import oip_cases, raw
from ours import NPUOPS
from served_models import ServedModel
from server_process import ServerProcess, command_line
from soak_load import COMES_AND_GOES, Clients
from soak_models import Repository
from soak_questions import INFER

CLOSED = {"closed", "reset", "closed, while sending", "reset, while sending"}
KILLED = r"npuops\.runtime\.(worker|step_process)"
MOST_BYTES = 10_000_000
"""Of malformed input: larger ones cost the client more than the server."""
YOUNG_S = 4.0
"""A worker that is younger may be loading still: killing it is a failed load, not a lost worker."""
LOADED_WITHIN_S = 25.0
PAGES = (
    "/",
    "/metrics",
    "/openapi.json",
    "/v2",
    "/v2/models/tiny",
    "/v2/models/tiny/config",
    "/v2/models/tiny/stats",
    "/v2/models/swapped",
    "/v2/models/double",
    "/v2/models/picture",
    "/v2/models/stats",
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
NO_HTTP2 = {
    "HTTP/1 for gRPC": b"GET / HTTP/1.1\r\nHost: soak\r\n\r\n",
    "noise": bytes(range(256)) * 8,
    "huge frame": PREFACE + SETTINGS + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    "headers on stream 0": PREFACE + SETTINGS + b"\x00\x00\x01\x01\x05\x00\x00\x00\x00\x82",
    "bad HPACK": PREFACE + SETTINGS + b"\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff",
    "continuation of nothing": PREFACE + SETTINGS + b"\x00\x00\x01\x09\x04\x00\x00\x00\x01\x82",
    "window of zero": PREFACE + SETTINGS + b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    "odd settings": PREFACE + b"\x00\x00\x05\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
}
"""Connections that the gRPC front end has to end."""


class Trouble:
    """One run's. What should not have been is counted in `bad`, by words."""

    def __init__(
        self, server: ServerProcess, clients: Clients, repository: Repository, model: ServedModel, chance: random.Random
    ) -> None:
        self.server = server
        self.clients = clients
        self.repository = repository
        self.cases = [case for case in oip_cases(model, server.command.http_port) if len(case[1]) < MOST_BYTES]
        self.device = ""
        self.chance = chance
        self.version = 1
        self.loaded = True
        self.killed_s = 0.0
        self.events: Counter[str] = Counter()
        self.bad: Counter[str] = Counter()
        self.kinds: dict[str, tuple[float, Callable[[], Awaitable[None]]]] = {
            "load or unload": (5, self.load_or_unload),
            "swap": (15, self.swap),
            "kill": (12, self.kill),
            "stop": (40, self.stop),
            "reset of the device": (45, self.reset),
            "malformed HTTP": (0.7, self.malformed),
            "malformed gRPC": (2, self.malformed_grpc),
            "garbage on the gRPC port": (4, self.garbage),
            "upload": (10, self.upload),
            "page": (1, self.page),
        }
        """Name → mean seconds between two, and what happens."""

    async def run(self, stop: asyncio.Event) -> None:
        """All kinds, until `stop`; what has begun is ended in order."""
        async with asyncio.TaskGroup() as tasks:
            for kind, (every_s, do) in self.kinds.items():
                tasks.create_task(self.often(kind, every_s, do, stop))

    async def often(self, kind: str, every_s: float, do: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self.chance.expovariate(1 / every_s))
            if stop.is_set():
                return
            self.events[kind] += 1
            try:
                await do()
            except (OSError, HTTPException, grpc.RpcError) as error:
                self.bad[f"{kind}: {type(error).__name__}: {error}"] += 1

    async def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
        """One request on a connection of its own."""
        return await asyncio.to_thread(asked, self.server.command.http_port, path, method, body)

    async def load_or_unload(self) -> None:
        """The model that comes and goes."""
        self.loaded = not self.loaded
        await self.turn("load" if self.loaded else "unload")

    async def turn(self, word: str) -> None:
        """Load or unload it; a load may fail if its worker was killed meanwhile, but then the next one has to do."""
        path = f"/v2/repository/models/{COMES_AND_GOES}/{word}"
        began = time.monotonic()
        status, said = await self.ask(path, "POST", b"{}")
        if status != 200 and word == "load" and self.killed_s >= began:
            self.events["load failed by a kill"] += 1
            status, said = await self.ask(path, "POST", b"{}")
        if status != 200:
            self.bad[f"{word} answered {status}: {said[:200]!r}"] += 1

    async def swap(self) -> None:
        """The next version of `swapped`: after its load no older one may answer, and its files may go."""
        folder = self.repository.folder / "swapped"
        version = self.version + 1
        await asyncio.to_thread(shutil.copytree, self.repository.swaps[str(version % 2)], folder / ".next")
        (folder / ".next").rename(folder / str(version))
        for _ in range(2):
            began = time.monotonic()
            status, said = await self.ask("/v2/repository/models/swapped/load", "POST", b"{}")
            if status == 200 or self.killed_s < began:
                break
            self.events["load failed by a kill"] += 1
        if status != 200:
            self.bad[f"swap answered {status}: {said[:200]!r}"] += 1
            return
        self.clients.least_version = version
        await asyncio.to_thread(shutil.rmtree, folder / str(self.version))
        self.version = version

    def victims(self, pattern: str = KILLED) -> list[int]:
        """Processes of the tree that may be killed."""
        found = []
        for pid in self.server.pids():
            with contextlib.suppress(OSError, ValueError):
                if re.search(pattern, command_line(pid)) and age_s(pid) > YOUNG_S:
                    found.append(pid)
        return found

    async def kill(self) -> None:
        """SIGKILL of a worker, of any kind."""
        if found := await asyncio.to_thread(self.victims):
            self.killed_s = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(found), signal.SIGKILL)

    async def stop(self) -> None:
        """SIGSTOP: a worker that hangs for a while; if it has work, the server may end it."""
        if found := await asyncio.to_thread(self.victims):
            pid = self.chance.choice(found)
            self.killed_s = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(self.chance.uniform(0.05, 6.0))
                os.kill(pid, signal.SIGCONT)

    async def reset(self) -> None:
        """The virtual device is reset under its programs."""
        argv = [str(NPUOPS), "device", "reset", self.device]
        done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=False)
        if done.returncode:
            self.bad[f"device reset: {done.stderr[-200:]}"] += 1

    async def malformed(self) -> None:
        """One case out of the table; refused by a status of 4xx, or the connection is closed."""
        name, data = self.chance.choice(self.cases)
        said = await raw(self.server.command.http_port, data)
        if said not in CLOSED and not said.startswith("4"):
            self.bad[f"malformed ({name}): {said}"] += 1

    async def malformed_grpc(self) -> None:
        """A message that is none, or whose tensors contradict it."""
        question = self.chance.choice(self.repository.questions["tiny"])
        good = question.grpc(0)
        cases = {
            "cut off": good[:-100],
            "noise": self.chance.randbytes(200),
            "no such model": good.replace(b"tiny", b"nine", 1),
            "no such input": good.replace(b"\n\x01x\x12", b"\n\x01q\x12", 1),
            "no such datatype": good.replace(b"FP32", b"FP99", 1),
            "excess contents": good + b"\x3a\x04abcd",
        }
        name = self.chance.choice(list(cases))
        unary = self.clients.channel().unary_unary(INFER)
        try:
            await unary(cases[name], timeout=20)
        except grpc.aio.AioRpcError as error:
            if error.code() not in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}:
                self.bad[f"malformed gRPC ({name}): {error.code().name}: {error.details()}"] += 1
        else:
            self.bad[f"malformed gRPC ({name}) was answered"] += 1

    async def garbage(self) -> None:
        """No HTTP/2, or a wrong one: the connection is ended by the server, with or without a word."""
        name = self.chance.choice(list(NO_HTTP2))
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.command.grpc_port)
        writer.write(NO_HTTP2[name])
        try:
            async with asyncio.timeout(20):
                while await reader.read(65536):
                    pass
        except TimeoutError:
            self.bad[f"garbage on the gRPC port ({name}): the connection stays"] += 1
        except ConnectionResetError:
            pass  # that ends it, too
        finally:
            writer.transport.abort()

    async def upload(self) -> None:
        """Files in a load request, and a region of shared memory: both are off, and must be refused."""
        code = base64.b64encode(b"not an artifact").decode()
        parameters = {"config": "{}", "file:9/manifest.json": code}
        body = json.dumps({"parameters": parameters}).encode()
        status, said = await self.ask("/v2/repository/models/tiny/load", "POST", body)
        if not 400 <= status < 500:
            self.bad[f"an upload was answered {status}: {said[:200]!r}"] += 1
        region = json.dumps({"key": "/soak", "offset": 0, "byte_size": 64}).encode()
        status, said = await self.ask("/v2/systemsharedmemory/region/soak/register", "POST", region)
        if not 400 <= status < 500:
            self.bad[f"a shared memory region was answered {status}: {said[:200]!r}"] += 1

    async def page(self) -> None:
        """What people and machines look at."""
        path = self.chance.choice(PAGES)
        status, _ = await self.ask(path)
        if status != 200:
            self.bad[f"GET {path} answered {status}"] += 1
        status, said = await self.ask("/v2/repository/index", "POST", b"{}")
        ready = {each["name"] for each in json.loads(said) if each.get("state") == "READY"} if status == 200 else set()
        for name in set(self.repository.questions) - ready - {COMES_AND_GOES, "sleeper"}:
            self.events[f"{name} is not ready in the index"] += 1


def asked(port: int, path: str, method: str, body: bytes | None) -> tuple[int, bytes]:
    """Status and body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body=body, headers={"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read()


def age_s(pid: int) -> float:
    """Since a process was started."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    up_s = float(Path("/proc/uptime").read_text().split()[0])
    return up_s - ticks / os.sysconf("SC_CLK_TCK")
