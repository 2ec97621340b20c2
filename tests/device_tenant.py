"""A client process for tests of virtual NPUs: goes to a stage, says so, and waits to be killed; or works and reports.

python device_tenant.py DEVICE opening|connected|loading|loaded|computing|submitted|unread|answering [MODEL]
python device_tenant.py DEVICE work COUNT MODEL
python device_tenant.py DEVICE noise PRIORITY
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np

from npuops.vnpu import wire
from npuops.vnpu.client import DeviceClient, connect
from npuops.vnpu.device_folder import device_folder
from npuops.vnpu.line_client import Line
from npuops.vnpu.tenancy import Priority
from virtual_devices import X, Y, program


class Tenant:
    """The process, seen from the test."""

    def __init__(self, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def reached(self) -> str:
        """Waits for the line that it prints."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, self._process.stderr and self._process.stderr.read()
        return line

    def end(self) -> None:
        """Killed, if it still runs."""
        self._process.kill()
        self._process.communicate()


def to_stage(device: str, stage: str, model: Path | None) -> None:
    line = Line(device_folder(device), 10.0)
    hello = wire.frame(wire.Hello(id=1, version=wire.VERSION, priority="normal"))
    if stage == "opening":
        raw(line).sendall(hello[:6])
    elif stage == "loading":
        load = wire.Load(id=2, program=program(), inputs=X, outputs=Y, slots=2, model=str(model))
        raw(line).sendall(hello + wire.frame(load))
    elif stage == "answering":
        raw(line).sendall(hello)
        ask = b"".join(wire.frame(wire.AskStatus(id=number)) for number in range(2, 1_500))
        raw(line).sendall(ask)  # the answers do not fit into the socket
    else:
        use_device(DeviceClient(line, Priority.NORMAL, 10.0), stage, model)
    print(stage, flush=True)  # noqa: T201 - its parent reads it
    time.sleep(60)


def raw(line: Line) -> socket.socket:
    found = line._socket
    assert found is not None
    found.setblocking(True)
    return found


def use_device(client: DeviceClient, stage: str, model: Path | None) -> None:
    if stage == "connected":
        return
    loaded = client.load(program(50_000.0), X, Y, model=model)
    if stage in {"submitted", "unread", "computing"}:
        loaded.submit(0)
        loaded.submit(1)
    if stage == "unread":
        while not client._line.has_come(3):
            time.sleep(0.001)


def work(device: str, count: int, model: Path) -> None:
    rng = np.random.default_rng(os.getpid())
    right = 0
    with connect(device) as client:
        loaded = client.load(program(), X, Y, model=model)
        for _ in range(count):
            x = rng.normal(size=(4, 8)).astype(np.float32)
            outputs, _ = loaded.run({"x": x})
            right += bool((outputs["y"] == np.maximum(x, 0)).all())
        telemetry = client.status().telemetry
        mine = next(each for each in telemetry.contexts if each.id == client.context)
    print(json.dumps({"right": right, "pid": mine.pid, "completions": mine.completions}), flush=True)  # noqa: T201 - its parent reads it


def make_noise(device: str, priority: Priority) -> None:
    """Eight jobs of 50 ms in the queue, always, until the device ends."""
    with connect(device, priority=priority) as client:
        loaded = client.load(program(50_000.0, steps=50), X, Y, slots=8)
        tickets = deque((slot, loaded.submit(slot)) for slot in range(8))
        print("noise", flush=True)  # noqa: T201 - its parent reads it
        while True:
            slot, ticket = tickets.popleft()
            loaded.wait(ticket)
            tickets.append((slot, loaded.submit(slot)))


if __name__ == "__main__":
    name, stage, *rest = sys.argv[1:]
    if stage == "work":
        work(name, int(rest[0]), Path(rest[1]))
    elif stage == "noise":
        make_noise(name, Priority[rest[0]])
    else:
        to_stage(name, stage, Path(rest[0]) if rest else None)
