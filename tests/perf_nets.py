"""Workloads made by hand, for the tests of the cost law."""

from __future__ import annotations

from typing import Any

from npuops.vnpu.work import Work, Workload
from npuops.vnpu.work_kinds import Kind


def dense(name: str = "conv", **changes: Any) -> Work:
    """64 channels of 14x14 to 64, with a window of 3x3."""
    sizes: dict[str, Any] = {"groups": 1, "rows": 196, "columns": 64, "depth": 576, "channels": 64, **changes}
    macs = sizes["groups"] * sizes["rows"] * sizes["columns"] * sizes["depth"]
    return Work(
        name=name,
        op="Conv",
        kind=sizes.pop("kind", Kind.DENSE),
        macs=macs,
        weight_elements=sizes["columns"] * sizes["depth"] * sizes["groups"],
        tensors=((196 * 64, 64), (196 * 64, 64)),
        **sizes,
    )


def move(name: str = "concat", elements: int = 100_000, **changes: Any) -> Work:
    """A Concat that reads and writes so many elements."""
    return Work(name=name, op="Concat", kind=Kind.MOVE, macs=0, tensors=((elements, 64), (elements, 64)), **changes)


def net(*layers: Work, name: str = "net") -> Workload:
    """Layers in a row; 1,000 elements in, 10 out."""
    return Workload(name=name, layers=layers, input_elements=1000, output_elements=10)
