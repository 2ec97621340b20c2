"""ONNX Runtime's own profile: microseconds of each node it schedules.

A plugin's subgraph is one node there. OpenVINO writes its own kernels beside it ("Kernel" events that name the
node as their parent): then they stand in its place.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping
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
_OPENVINO: Final = "OV::"


def node_costs(artifact: Artifact, engine: Engine, inputs: Tensors, *, whole: bool) -> tuple[OpCost, ...]:
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

        raw = open_session(engine, artifact.entry, whole=whole, adjust=profiled)
        session = OrtSession(artifact, engine, raw)
        for _ in range(1 + RUNS):
            session.run(inputs)
        events = json.loads(Path(raw.end_profiling()).read_text(encoding="utf-8"))
        session.close()
    return _medians(engine, events)


def _medians(engine: Engine, events: list[Mapping[str, Any]]) -> tuple[OpCost, ...]:
    inner = [event for event in events if event.get("cat") == "Kernel" and _ran(event, engine)]
    parents = {event["args"]["parent_ort_event_name"] for event in inner}
    times: dict[str, list[float]] = {}
    kinds: dict[str, tuple[str, RunsOn]] = {}
    for event in events:
        node = event["name"].removesuffix(_SUFFIX) if _is_kernel(event, parents) else ""
        if node:
            times.setdefault(node, []).append(float(event["dur"]))
            own = event["args"].get("provider") == engine.ep_name
            kinds[node] = (str(event["args"]["op_name"]), RunsOn.NPU if own else RunsOn.CPU)
    for event in inner:
        node = event["name"].removeprefix(_OPENVINO)
        times.setdefault(node, []).append(float(event["dur"]))
        kinds[node] = (str(event["args"]["ov_node_type"]), RunsOn.NPU)
    if not times:
        raise ToolchainError(f"ONNX Runtime's profile on {engine.target} names no node")
    return tuple(
        OpCost(name=node, op=kinds[node][0], runs_on=kinds[node][1], cost=statistics.median(durations[-RUNS:]))
        for node, durations in times.items()
    )


def _is_kernel(event: Mapping[str, Any], parents: set[str]) -> bool:
    name = str(event["name"])
    return event.get("cat") == "Node" and name.endswith(_SUFFIX) and name not in parents


def _ran(event: Mapping[str, Any], engine: Engine) -> bool:
    found = event["args"]
    return bool(found.get("ep") == engine.ep_name and found.get("ov_status") == "EXECUTED")
