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
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


def give_models_mappings_of_their_own() -> None:
    """A block of a megabyte or more goes back to the kernel when it is freed.

    Left alone, glibc raises that threshold to the largest block freed so far (32 MiB at most), and then keeps a freed
    model or two at the top of each thread's heap, where `malloc_trim` does not reach: no leak, but it looks like one.
    """
    assert ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MIB)


def resident_bytes() -> int:
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

    give_models_mappings_of_their_own()

    async def main() -> None:
        for _ in range(4):  # what libraries keep for good is taken by then
            await cycle()
        before, files = resident_bytes(), descriptors()
        for _ in range(20):
            await cycle()
        assert resident_bytes() - before < WEIGHTS_MIB * MIB, "a model of twenty stayed"
        assert descriptors() <= files
        assert segments() == 0
        assert children() == []

    run(main())
