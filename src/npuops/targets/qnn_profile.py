"""QNN's profiling CSV: cycles of each operator on the emulator, which are ticks of this host and nothing else."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from npuops.errors import ToolchainError
from npuops.models.placement import RunsOn
from npuops.targets.protocol import OpCost

UNIT: Final = "emulator ticks"
_NODE: Final = re.compile(r"^(?P<name>.+?)(?::OpId_\d+| OpId_\d+) \(cycles\)$")
_INNER: Final = re.compile(r"_token_\d+$")


def read_profile(path: Path, ops: Mapping[str, str]) -> tuple[OpCost, ...]:
    """The rows of one inference, in execution order.

    Args:
        path: what QNN wrote with `profiling_level=detailed`.
        ops: node name → operator, as far as the placement knows them; `Input`, `Output` and what QNN inserted
            keep their own name as operator.

    Raises:
        ToolchainError: no such file, or no operator in it.
    """
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ToolchainError(f"QNN wrote no profile: {error.strerror}", advice="is the disk full?") from error
    costs = [cost for row in rows if (cost := _cost(row, ops)) is not None]
    if not costs:
        raise ToolchainError(f"QNN's profile has {len(rows)} rows and no operator in them")
    return tuple(costs)


def _cost(row: Mapping[str, str | None], ops: Mapping[str, str]) -> OpCost | None:
    match = _NODE.match(row.get("Event Identifier") or "")
    ticks = row.get("Time") or ""
    if row.get("Unit of Measurement") != "CYCLES" or match is None or not ticks.isdigit():
        return None
    name = match["name"]
    op = ops.get(name) or ops.get(_INNER.sub("", name)) or name
    return OpCost(name=name, op=op, runs_on=RunsOn.NPU, cost=float(ticks))
