"""A client process for tests of virtual NPUs: goes to a stage, says so, and waits to be killed; or works and reports.

python device_tenant.py DEVICE connected|loaded|computing|submitted|unread [MODEL]
python device_tenant.py DEVICE work COUNT MODEL
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from npuops.vnpu.client import connect
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
    client = connect(device)
    if stage != "connected":
        loaded = client.load(program(50_000.0), X, Y, model=model)
        if stage in {"submitted", "unread"}:
            loaded.submit(0)
            loaded.submit(1)
        if stage == "unread":
            time.sleep(0.2)  # the answers are in the socket
    print(stage, flush=True)  # noqa: T201 - its parent reads it
    time.sleep(60)


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


if __name__ == "__main__":
    name, stage, *rest = sys.argv[1:]
    if stage == "work":
        work(name, int(rest[0]), Path(rest[1]))
    else:
        to_stage(name, stage, Path(rest[0]) if rest else None)
