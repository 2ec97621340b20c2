"""Runs in the server's own process, for models so small that waking a worker costs more than the run.

A lone request on an idle model is computed here; as soon as a second one waits, the worker takes over. Only targets
whose code is trusted not to crash are run so, and the worker stays the one that warms up, measures and is watched.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.folder import open_artifact
from npuops.errors import RunError
from npuops.runtime.buckets import Bucket, choose
from npuops.runtime.delivery import give
from npuops.runtime.doorbell import raised, told_of
from npuops.runtime.job import Completion, Job
from npuops.runtime.replica import Replica
from npuops.runtime.reporter import Reporter
from npuops.runtime.signature import Form, Signature
from npuops.targets.protocol import Session
from npuops.targets.registry import open_target

INLINE_US: Final = 100.0
"""Longer runs would make other connections wait; a worker's two wake-ups cost about as much."""

_FORMS_KEPT: Final = 256


class InlineSession:
    """The artifacts of one replica, opened once more in this process.

    Attributes:
        replica: whose artifacts they are.
    """

    def __init__(self, replica: Replica, signature: Signature) -> None:
        """Open them; takes as long as it takes a worker.

        Raises:
            NpuopsError: the target cannot.
        """
        self.replica = replica
        self._known: dict[object, Bucket | None] = {}
        self._batched = signature.batched
        self._inputs = [(port.name, np.dtype(port.dtype)) for port in signature.inputs]
        self._outputs = [(port.name, np.dtype(port.dtype)) for port in signature.outputs]
        with ExitStack() as stack:
            self._sessions = [stack.enter_context(closing(_open(path))) for path in replica.spec.artifacts]
            self._resources = stack.pop_all()

    def takes(self, form: Form) -> bool:
        """Whether it can compute this; what would be padded only the worker can."""
        if (form.key, form.rows) not in self._known:
            self._known[form.key, form.rows] = self._bucket(form)
        bucket = self._known[form.key, form.rows]
        return self.replica.ready and bucket is not None and bucket.rows in {None, form.rows}

    def run(self, job: Job, now_us: int, reporter: Reporter) -> None:
        """Compute and answer a request that it `takes`."""
        bucket = self._known[job.form.key, job.form.rows]
        assert bucket is not None  # noqa: S101 - it takes it
        started_us = time.perf_counter_ns() // 1000
        try:
            arrays = self._computed(bucket, job)
        except Exception as error:  # noqa: BLE001 - as in a worker: whatever a vendor's code raises is told
            reporter.fail(job, self.replica, raised(told_of(error)))
            return
        computed_us = time.perf_counter_ns() // 1000
        spec = self.replica.spec
        parts = [array.reshape(-1).view(np.uint8).data for array in arrays]
        give(job, Completion(parts, tuple([array.shape for array in arrays]), spec.name, fell_back=spec.fallback))
        reporter.ran_inline(spec, job, (now_us, started_us, computed_us, time.perf_counter_ns() // 1000))

    def close(self) -> None:
        """Give the sessions back. A second call does nothing."""
        self._sessions = []
        self._resources.close()
        _give_memory_back()

    def _computed(self, bucket: Bucket, job: Job) -> list[NDArray[Any]]:
        feeds = {
            name: np.frombuffer(part, dtype).reshape(shape)
            for (name, dtype), part, shape in zip(self._inputs, job.parts, job.form.shapes, strict=True)
        }
        found = self._sessions[bucket.index].run(feeds)
        arrays = []
        for name, dtype in self._outputs:
            array = np.ascontiguousarray(found[name]).reshape(found[name].shape)  # the first makes a number a row
            if array.dtype != dtype or (self._batched and array.shape[0] != job.form.rows):
                raise RunError(f"output {name!r} is {array.dtype.name}{list(array.shape)}, which is not the model's")
            arrays.append(array)
        return arrays

    def _bucket(self, form: Form) -> Bucket | None:
        if len(self._known) >= _FORMS_KEPT:
            self._known.clear()
        return choose(self.replica.spec.buckets, form, form.rows)


def worth_it(replicas: Sequence[Replica], mode: str, signature: Signature) -> Replica | None:
    """The replica whose runs are short enough, or None. `mode`: `auto`, `never`, or `always` (for targets that may)."""
    plain = all(port.dtype not in {"string", "bfloat16"} for port in (*signature.inputs, *signature.outputs))
    if mode == "never" or not plain:
        return None
    for replica in replicas:
        if (
            replica.ready
            and replica.spec.inline
            and not replica.spec.fallback
            and all(curve.points for curve in replica.curves)
        ):
            fast = all(curve.us(1) <= INLINE_US for curve in replica.curves)
            if fast or mode == "always":
                return replica
    return None


def _give_memory_back() -> None:
    """The C library keeps what was freed, for every thread a heap of its own; weights are too large for that."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    if trim is not None:
        trim(0)


def _open(path: Path) -> Session:
    artifact = open_artifact(path)
    runner = open_target(artifact.manifest.target).runner
    if runner is None:
        raise RunError(f"nothing on this machine runs an artifact for {artifact.manifest.target}")
    return runner.open(artifact)
