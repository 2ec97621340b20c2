"""The same engine without a server: how many inferences a second one loop makes, and the same loop over an artifact."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from served_models import ServedModel, ort_session
from server_process import busy_seconds

from npuops.artifacts.folder import opened
from npuops.targets.registry import open_target

WARM_UP_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """What a loop reached, and what it cost."""

    per_s: float
    cpu_s_per_1000: float
    foreign_cores: float
    """Cores that others used."""


def ort_loop(model: ServedModel, seconds: float, threads: int = 1) -> Loop:
    """Bare ONNX Runtime, one row at a time."""
    session = ort_session(model.path, threads)
    return rate(lambda: session.run([model.output], model.inputs), seconds)


def artifact_loop(artifact: Path, model: ServedModel, seconds: float) -> Loop:
    """An artifact's own runner: what a server of it could reach at most with one worker."""
    with opened(artifact) as found:
        runner = open_target(found.manifest.target).runner
        if runner is None:
            raise RuntimeError(f"{found.manifest.target} runs nothing on this machine")
        session = runner.open(found)
        try:
            return rate(lambda: session.run(model.inputs), seconds)
        finally:
            session.close()


def rate(call: Callable[[], Any], seconds: float) -> Loop:
    """Calls, after a warm-up."""
    for limit in (WARM_UP_S, seconds):
        began, calls, cpu, busy = time.perf_counter(), 0, time.process_time(), busy_seconds()
        while (spent := time.perf_counter() - began) < limit:
            call()
            calls += 1
    cpu, busy = time.process_time() - cpu, busy_seconds() - busy
    return Loop(
        per_s=calls / spent,
        cpu_s_per_1000=1000 * cpu / calls,
        foreign_cores=round((busy - cpu) / spent, 2),
    )
