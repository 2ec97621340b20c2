"""Engines for tests: real worker processes, hostile ones or those of real artifacts, and questions to them."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop
from numpy.typing import NDArray

from hostile_worker import COLUMNS
from npuops.artifacts.manifest import Artifact
from npuops.clock import SystemClock
from npuops.errors import NpuopsError
from npuops.runtime.buckets import Bucket
from npuops.runtime.engine import Engine
from npuops.runtime.engine_options import EngineOptions
from npuops.runtime.facts import ColdCause
from npuops.runtime.job import Completion, Job
from npuops.runtime.replica import DeviceSpec
from npuops.runtime.replicas import Services
from npuops.runtime.signature import Port, Signature, form_of
from npuops.runtime.worker_process import MODULE, SparePool
from npuops.server.version_signature import rows_of, signature_of
from npuops.testing import EventLog

TESTS = Path(__file__).resolve().parent
HOSTILE = "hostile_worker"
REAL = MODULE
X = Port(name="x", dtype="float32", shape=(-1, COLUMNS))
Y = Port(name="y", dtype="float32", shape=(-1, COLUMNS))
ROWS = Signature(inputs=(X,), outputs=(Y,), batched=True, max_rows=8)
ANY_ROWS = (Bucket(0, None, ((COLUMNS,),)),)
LIMIT_S = 60.0
"""Whatever takes longer is stuck; no test waits so long when all is well."""


@dataclass(slots=True)
class Got:
    """What became of a request: copied at once, for the memory is the engine's."""

    outputs: list[NDArray[Any]]
    shapes: tuple[tuple[int, ...], ...]
    device: str
    fell_back: bool


@dataclass(slots=True)
class Lab:
    """An engine at work.

    Attributes:
        answered: how often the receiver of each request was called.
    """

    engine: Engine
    log: EventLog
    spares: SparePool
    signature: Signature
    answered: dict[int, int] = field(default_factory=dict)
    _asked: int = 0

    def ask(self, *arrays: NDArray[Any], **job: Any) -> asyncio.Future[Got | NpuopsError]:
        """Submit; the future has what came, errors included."""
        return self.send(arrays, **job)[1]

    def send(
        self, arrays: Sequence[NDArray[Any]], parts: Sequence[bytes] | None = None, **job: Any
    ) -> tuple[Job, asyncio.Future[Got | NpuopsError]]:
        """Submit; also gives the job, to cancel it. `parts`: bytes to send instead of the arrays' own."""
        future: asyncio.Future[Got | NpuopsError] = asyncio.get_running_loop().create_future()
        self._asked += 1
        number = self._asked
        self.answered[number] = 0

        def receive(_: Job, what: Completion | NpuopsError) -> None:
            self.answered[number] += 1
            if not future.done():
                future.set_result(self._copied(what) if isinstance(what, Completion) else what)

        form = form_of(self.signature, [array.shape for array in arrays])
        data = parts if parts is not None else [array.tobytes() for array in arrays]
        made = Job(form, data, receive, SystemClock().now_us(), **job)
        self.engine.submit(made)
        return made, future

    def _copied(self, completion: Completion) -> Got:
        outputs = []
        for port, data, shape in zip(self.signature.outputs, completion.outputs, completion.shapes, strict=True):
            if port.dtype == "string":
                outputs.append(np.array(bytes(data), dtype=object))
            else:
                outputs.append(np.frombuffer(bytes(data), port.dtype).reshape(shape))
        return Got(outputs, completion.shapes, completion.device, completion.fell_back)

    def of(self, kind: type[Any]) -> list[Any]:
        """Facts of a kind."""
        return [event for event in self.log.events if isinstance(event, kind)]


def hostile(name: str = "npu", **rest: Any) -> DeviceSpec:
    """A device whose worker is the hostile one."""
    values = {"buckets": ANY_ROWS, "artifacts": (Path("none"),), "target": "none", **rest}
    return DeviceSpec(name=name, **values)


@asynccontextmanager
async def engine_of(
    devices: Sequence[DeviceSpec],
    signature: Signature = ROWS,
    *,
    module: str = HOSTILE,
    spares: int = 0,
    start: bool = True,
    weights: Callable[[str], float] = lambda _: 1.0,
    **options: Any,
) -> AsyncIterator[Lab]:
    """An engine, started; at the end it is closed, and every request must have been answered at most once."""
    loop, log = asyncio.get_running_loop(), EventLog()
    pool = SparePool(loop, spares, module=module)
    services = Services(loop=loop, clock=SystemClock(), observe=log, spares=pool)
    engine = Engine("model", "1", signature, devices, EngineOptions(**options), services, weights)
    lab = Lab(engine, log, pool, signature)
    try:
        if start:
            await engine.start(ColdCause.LOAD)
        yield lab
    finally:
        await engine.close()
        await pool.close()
    assert max(lab.answered.values(), default=0) <= 1


def run(main: Coroutine[Any, Any, None]) -> None:
    """A test on the loop that the server has; it ends, or fails."""

    async def limited() -> None:
        failures: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(str(context)))
        await asyncio.wait_for(main, LIMIT_S)
        assert failures == []

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))  # where the hostile worker is
        _earlier.clear()
        _earlier.update(_all_children())
        uvloop.run(limited())


def row(value: float, rows: int = 1) -> NDArray[Any]:
    """An input whose rows all carry this value."""
    return np.full((rows, COLUMNS), value, np.float32)


async def until(holds: Callable[[], object], complaint: str, limit_s: float = LIMIT_S) -> None:
    """What another process does is awaited, never assumed."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, complaint
        await asyncio.sleep(0.005)


def in_time(seconds: float) -> int:
    """A deadline so far from now."""
    return SystemClock().now_us() + int(seconds * 1e6)


def descriptors() -> int:
    """Files that this process has open."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only how many


def segments(pid: int | str = "self") -> int:
    """Pieces of the slots' memory that a process has mapped."""
    return Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").count("memfd:npuops-serve")


def children() -> list[int]:
    """Processes started since `run` began, and still there, zombies included."""
    return sorted(_all_children() - _earlier)


def _all_children() -> set[int]:
    words = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split()
    return {int(pid) for pid in words}


_earlier: set[int] = set()
"""Of other tests in the same process, such as Python's own fork server."""


def gone(pid: int) -> bool:
    """Neither alive nor a zombie."""
    return not Path(f"/proc/{pid}").exists()


def served(artifact: Artifact, name: str = "cpu", **rest: Any) -> tuple[DeviceSpec, Signature]:
    """A device that runs a real artifact, and what it takes."""
    signature = signature_of([artifact.manifest])
    shapes = tuple(
        None if tensor.shape is None else tuple(dim if isinstance(dim, int) else -1 for dim in tensor.shape)
        for tensor in artifact.manifest.inputs
    )
    rows = rows_of(artifact.manifest) if signature.batched else None
    buckets = (Bucket(0, rows, tuple(shape[1:] if shape and signature.batched else shape for shape in shapes)),)
    target = artifact.manifest.target
    return DeviceSpec(name=name, target=target, artifacts=(artifact.root,), buckets=buckets, **rest), signature
