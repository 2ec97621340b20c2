"""A repository of real toy artifacts on disk, and a launcher that really verifies and opens them, in this process."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from npuops.artifacts.folder import open_artifact
from npuops.artifacts.manifest import MANIFEST_NAME
from npuops.clock import Clock
from npuops.runtime.facts import ColdCause
from npuops.server.repository import Repository
from npuops.server.repository_layout import Scanner
from npuops.server.version_spec import VersionSpec
from npuops.targets.protocol import Session
from npuops.targets.registry import open_target
from npuops.testing import EventLog, ManualClock
from toy_artifact import sample_input, toy_artifact


class Toy:
    """A version in this process. `busy` are its requests; draining waits until the test has ended them."""

    def __init__(self, spec: VersionSpec, session: Session, clock: Clock) -> None:
        self.spec, self.clock = spec, clock
        self.ready, self.last_used_us = True, clock.now_us()
        self.drained = self.closed = False
        self.drain_s = 0.0
        self.busy: set[str] = set()
        self.changed = asyncio.Event()
        self._session = session

    @property
    def in_flight(self) -> int:
        return len(self.busy)

    def reconfigure(self, spec: VersionSpec) -> None:
        self.spec = spec

    def answer(self) -> np.ndarray[Any, Any]:
        assert not self.closed
        self.last_used_us = self.clock.now_us()
        return self._session.run({"x": sample_input()})["y"]

    def finish(self) -> None:
        self.busy.clear()
        self.changed.set()

    async def drain(self, limit_s: float) -> None:
        self.drained, self.drain_s = True, limit_s
        while self.busy:
            await self.changed.wait()

    async def close(self) -> None:
        self._session.close()
        self.closed = True


class ToyLauncher:
    """Opens every artifact of a version, for real. `hold` keeps launches waiting until `let_go`.

    Attributes:
        failing: what the next launches fail with, in order.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.failing: list[Exception] = []
        self.launched: list[tuple[str, str, ColdCause]] = []
        self.alive: list[Toy] = []
        self.cancelled = 0
        self._open = asyncio.Event()
        self._open.set()
        self._arrived: list[asyncio.Future[None]] = []

    def hold(self) -> None:
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    async def launch(self, spec: VersionSpec, cause: ColdCause) -> Toy:
        self.launched.append((spec.model, spec.version, cause))
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failing:
            raise self.failing.pop(0)
        artifacts = [await asyncio.to_thread(open_artifact, item.path) for item in spec.artifacts]
        runner = open_target("toy").runner
        assert runner is not None
        toy = Toy(spec, runner.open(artifacts[0]), self.clock)
        self.alive.append(toy)
        return toy


class Lab:
    """A repository on disk, served."""

    def __init__(self, root: Path, *, made: Callable[[int], Path], **options: Any) -> None:
        self.root, self._made = root, made
        root.mkdir(exist_ok=True)
        self.clock, self.log = ManualClock(1_000_000), EventLog()
        self.launcher = ToyLauncher(self.clock)
        options.setdefault("room_wait_s", 0.0)
        self.repository: Repository[Toy] = Repository(
            Scanner(root), self.launcher, clock=self.clock, observe=self.log, **options
        )

    def put(self, where: str, seed: int = 0) -> Path:
        """A copy of the artifact number `seed`, at once, as a rename on one file system does it."""
        path = self.root / where
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.root / ".incoming"
        shutil.copytree(self._made(seed), scratch)
        if path.exists():
            shutil.rmtree(path)
        scratch.rename(path)
        return path

    def remove(self, where: str) -> None:
        shutil.rmtree(self.root / where)

    def damage(self, where: str) -> None:
        """Other bytes in the program, of the same length: only verifying finds it."""
        path = self.root / where / "program.toy"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)

    def options(self, model: str, text: str) -> None:
        (self.root / model).mkdir(parents=True, exist_ok=True)
        (self.root / model / "model.toml").write_text(text)

    async def look(self, **options: Any) -> None:
        await self.repository.refresh(**options)
        await self.repository.settled()

    def answer(self, name: str, version: str = "") -> np.ndarray[Any, Any]:
        return self.repository.serving[name, version].answer()

    def defaults(self) -> set[str]:
        return {name for name, version in self.repository.serving if not version}

    def states(self, name: str) -> dict[str, str]:
        return {line.version: line.state for line in self.repository.index() if line.name == name}

    def reason(self, name: str, version: str = "1") -> str:
        return next(line.reason for line in self.repository.index() if (line.name, line.version) == (name, version))


@asynccontextmanager
async def lab(root: Path, made: Callable[[int], Path], **options: Any) -> AsyncIterator[Lab]:
    """At its end everything is closed, and nothing may be left alive."""
    made_lab = Lab(root, made=made, **options)
    try:
        yield made_lab
    finally:
        made_lab.launcher.let_go()
        for toy in made_lab.launcher.alive:
            toy.finish()
        await made_lab.repository.close()
    assert all(toy.drained and toy.closed for toy in made_lab.launcher.alive)
    assert made_lab.repository.serving == {}


async def rounds(count: int = 20) -> None:
    """Let everything go on that can go on without the disk."""
    for _ in range(count):
        await asyncio.sleep(0)


def toys(folder: Path) -> Callable[[int], Path]:
    """Artifacts by number; each is compiled once."""

    def made(seed: int) -> Path:
        path = folder / f"toy{seed}"
        if not path.exists():
            toy_artifact(path, seed=seed)
        assert (path / MANIFEST_NAME).exists()
        return path

    return made


def touch(path: Path) -> None:
    """Another time of change, whatever the resolution of the file system's clock."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
