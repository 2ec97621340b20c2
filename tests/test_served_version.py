"""Memory goes back when a model is unloaded: of processes, slots, descriptors, and of the server's own heap."""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine_lab import REAL, Got, children, descriptors, engine_of, run, segments, served
from npuops.runtime.facts import BatchRan
from served_artifacts import ort_artifact, save

MIB = 1 << 20
WEIGHTS_MIB = 16


def resident_bytes() -> int:
    """Without what malloc keeps at hand at the top of threads' heaps, the more the fuller other tests made them."""
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def heavy(path: Path) -> Path:
    """`y = x @ w`, with 16 MiB of weights."""
    side = 2048
    weights = numpy_helper.from_array(np.eye(side, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "heavy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", side])],
        [weights],
    )
    return save(path, graph)


@pytest.mark.slow
@pytest.mark.parametrize("inline", ["never", "always"])
def test_twenty_loads_and_unloads_leave_memory_as_it_was(tmp_path: Path, inline: str) -> None:
    spec, signature = served(ort_artifact(tmp_path / "a", heavy(tmp_path / "heavy.onnx")), inline=True)
    x = np.random.default_rng(0).random((4, 2048)).astype(np.float32)

    async def cycle() -> None:
        async with engine_of([spec], signature, module=REAL, inline=inline) as lab:
            got = await asyncio.gather(*(lab.ask(x) for _ in range(8)))
            assert all(isinstance(each, Got) and np.allclose(each.outputs[0], x, rtol=1e-5) for each in got)
            assert isinstance(await lab.ask(x), Got)
            assert any(batch.inline for batch in lab.of(BatchRan)) == (inline == "always")
            assert segments() == 1

    async def main() -> None:
        for _ in range(4):  # what libraries keep for good is taken by then
            await cycle()
        before, files = resident_bytes(), descriptors()
        for _ in range(20):
            await cycle()
        # malloc may keep one model's worth at the top of a thread's heap, untrimmed; a leak keeps twenty.
        assert resident_bytes() - before < 2 * WEIGHTS_MIB * MIB, "models stayed"
        assert descriptors() <= files
        assert segments() == 0
        assert children() == []

    run(main())
