"""Runs in the server's own process, for models so small that waking a worker costs more than the run.

A lone request on an idle model is computed here; as soon as a second one waits, the worker takes over. Only targets
whose code is trusted not to crash are run so, and the worker stays the one that warms up, measures and is watched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from npuops.artifacts.folder import open_artifact
from npuops.errors import NpuopsError
from npuops.runtime.buckets import Bucket, choose
from npuops.runtime.delivery import refuse
from npuops.runtime.facts import BatchRan
from npuops.runtime.job import Completion, Job
from npuops.runtime.replica import Replica
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

    def __init__(self, identity: tuple[str, str], replica: Replica, signature: Signature) -> None:
        """Open them.

        Raises:
            NpuopsError: the target cannot.
        """
        self.replica = replica
        self._model, self._version = identity
        self._sessions: list[Session] = []
        self._known: dict[object, Bucket | None] = {}
        for path in replica.spec.artifacts:
            artifact = open_artifact(path)
            runner = open_target(artifact.manifest.target).runner
            assert runner is not None  # noqa: S101 - the worker opened it
            self._sessions.append(runner.open(artifact))
        self._dtypes = [np.dtype(port.dtype) for port in signature.inputs]
        self._inputs = [port.name for port in signature.inputs]
        self._outputs = [port.name for port in signature.outputs]

    def takes(self, form: Form) -> bool:
        """Whether it can compute this; what would be padded only the worker can."""
        if (form.key, form.rows) not in self._known:
            self._known[form.key, form.rows] = self._bucket(form)
        bucket = self._known[form.key, form.rows]
        return self.replica.ready and bucket is not None and bucket.rows in {None, form.rows}

    def run(self, job: Job, now_us: int, observe: Callable[[BatchRan], None]) -> None:
        """Compute and answer a request that it `takes`."""
        bucket = self._known[job.form.key, job.form.rows]
        assert bucket is not None  # noqa: S101 - it takes it
        feeds = {
            name: np.frombuffer(part, dtype).reshape(shape)
            for name, part, dtype, shape in zip(self._inputs, job.parts, self._dtypes, job.form.shapes, strict=True)
        }
        started_us = time.perf_counter_ns() // 1000
        try:
            found = self._sessions[bucket.index].run(feeds)
        except NpuopsError as error:
            refuse(job, error)
            return
        computed_us = time.perf_counter_ns() // 1000
        arrays = [np.ascontiguousarray(found[name]) for name in self._outputs]
        self._answer(job, arrays)
        observe(
            BatchRan(
                model=self._model,
                version=self._version,
                device=self.replica.spec.name,
                fell_back=self.replica.spec.fallback,
                inline=True,
                arrived_us=(job.arrived_us,),
                tenants=(job.tenant,),
                rows=job.form.rows,
                padded_rows=0,
                dispatched_us=now_us,
                started_us=started_us,
                computed_us=computed_us,
                answered_us=time.perf_counter_ns() // 1000,
            )
        )

    def close(self) -> None:
        """Give the sessions back."""
        for session in self._sessions:
            session.close()
        self._sessions = []

    def _bucket(self, form: Form) -> Bucket | None:
        if len(self._known) >= _FORMS_KEPT:
            self._known.clear()
        return choose(self.replica.spec.buckets, form, form.rows)

    def _answer(self, job: Job, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
        spec = self.replica.spec
        parts = [array.reshape(-1).view(np.uint8).data for array in arrays]
        shapes = tuple([array.shape for array in arrays])
        job.receiver(job, Completion(parts, shapes, spec.name, fell_back=spec.fallback))


def worth_it(replicas: Sequence[Replica], mode: str, signature: Signature) -> Replica | None:
    """The replica whose runs are short enough, or None. `mode`: `auto`, `never`, or `always` (for targets that may)."""
    plain = all(port.dtype not in {"string", "bfloat16"} for port in (*signature.inputs, *signature.outputs))
    if mode == "never" or not plain:
        return None
    for replica in replicas:
        if replica.spec.inline and not replica.spec.fallback and replica.curves:
            fast = all(curve.us(1) <= INLINE_US for curve in replica.curves)
            if fast or mode == "always":
                return replica
    return None
