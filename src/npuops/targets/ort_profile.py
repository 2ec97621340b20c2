"""ONNX Runtime's own profile: microseconds of each node it schedules."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from npuops.artifacts.manifest import Artifact
from npuops.errors import ToolchainError
from npuops.models.placement import RunsOn
from npuops.targets.ort_engine import Engine, open_session
from npuops.targets.ort_session import OrtSession
from npuops.targets.protocol import OpCost, Tensors

RUNS: Final = 5
"""Timed inferences after one that warms up; each node's cost is the median."""

_SUFFIX: Final = "_kernel_time"


def node_costs(artifact: Artifact, engine: Engine, inputs: Tensors) -> tuple[OpCost, ...]:
    """Median microseconds of each node, in execution order.

    Raises:
        ToolchainError: the session cannot be made, or wrote no profile.
        DataError: a name, shape or dtype of `inputs` is not the model's.
        RunError: the runtime refused the inputs.
    """
    with tempfile.TemporaryDirectory(prefix="npuops-ort-profile-") as name:

        def profiled(options: Any) -> None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(name) / "profile")

        raw = open_session(engine, artifact.entry, whole=True, adjust=profiled)
        session = OrtSession(artifact, engine, raw)
        for _ in range(1 + RUNS):
            session.run(inputs)
        events = json.loads(Path(raw.end_profiling()).read_text(encoding="utf-8"))
        session.close()
    return _medians(engine, events)


def _medians(engine: Engine, events: list[Mapping[str, Any]]) -> tuple[OpCost, ...]:
    times: dict[str, list[float]] = {}
    kinds: dict[str, tuple[str, RunsOn]] = {}
    for event in _outermost(events):
        node = event["name"].removesuffix(_SUFFIX)
        times.setdefault(node, []).append(float(event["dur"]))
        own = event["args"].get("provider") == engine.ep_name
        kinds[node] = (str(event["args"]["op_name"]), RunsOn.NPU if own else RunsOn.CPU)
    if not times:
        raise ToolchainError(f"ONNX Runtime's profile on {engine.target} names no node")
    return tuple(
        OpCost(name=node, op=kinds[node][0], runs_on=kinds[node][1], cost=statistics.median(durations[-RUNS:]))
        for node, durations in times.items()
    )


def _outermost(events: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The nodes of the graph itself: the time of a loop or branch has the nodes within it already.

    ORT runs one node after the other and writes down a node when it ends, so what lies within comes before it.
    """
    late_first = reversed(events)
    kernels = [event for event in late_first if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX)]
    end = 0
    for event in sorted(kernels, key=lambda event: (event["ts"], -event["dur"])):
        if event["ts"] >= end:
            end = event["ts"] + event["dur"]
            yield event
