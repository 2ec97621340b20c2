from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from engine_lab import REAL, Got, engine_of, run, served
from npuops.errors import RunError
from npuops.runtime.facts import BatchRan, RequestFailed
from npuops.runtime.inline import worth_it
from served_artifacts import identity, ort_artifact, save, tiny_cnn


def lookup(path: Path) -> Path:
    """`y = table[x]`: an index outside of the table is refused by the kernel."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [4], [10.0, 11.0, 12.0, 13.0])
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        "lookup",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["N", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        [table],
    )
    return save(path, graph)


def test_a_lone_request_is_computed_here_and_gets_what_a_worker_gives(tmp_path: Path) -> None:
    spec, signature = served(ort_artifact(tmp_path / "a", tiny_cnn(tmp_path / "tiny.onnx")), inline=True)
    x = np.random.default_rng(1).random((2, 1, 28, 28)).astype(np.float32)

    async def main() -> None:
        answers = {}
        for mode in ("always", "never"):
            async with engine_of([spec], signature, module=REAL, inline=mode) as lab:
                got = await lab.ask(x)
                assert isinstance(got, Got)
                answers[mode] = got
                (batch,) = lab.of(BatchRan)
                assert batch.inline == (mode == "always")
                assert batch.dispatched_us <= batch.started_us <= batch.computed_us <= batch.answered_us
        np.testing.assert_array_equal(answers["always"].outputs[0], answers["never"].outputs[0])
        assert answers["always"].shapes == answers["never"].shapes

    run(main())


@pytest.mark.parametrize("inline", ["always", "never"])
def test_a_bad_input_fails_alone_and_is_reported(tmp_path: Path, inline: str) -> None:
    spec, signature = served(ort_artifact(tmp_path / "a", lookup(tmp_path / "l.onnx")), inline=True)

    async def main() -> None:
        async with engine_of([spec], signature, module=REAL, inline=inline) as lab:
            assert isinstance(await lab.ask(np.array([[99]])), RunError)
            asked = [lab.ask(np.array([[each % 5 * 99 if each == 7 else each % 4]])) for each in range(12)]
            got = await asyncio.gather(*asked)
            assert [isinstance(each, Got) for each in got] == [each != 7 for each in range(12)]
            assert [float(each.outputs[0][0, 0]) for each in got if isinstance(each, Got)] == [
                10.0 + each % 4 for each in range(12) if each != 7
            ]
            assert [failed.error for failed in lab.of(RequestFailed)] == ["RunError", "RunError"]

    run(main())


def test_what_would_be_filled_up_goes_to_the_worker(tmp_path: Path) -> None:
    spec, _ = served(ort_artifact(tmp_path / "a", tiny_cnn(tmp_path / "tiny.onnx", batch=4)), inline=True)
    _, signature = served(ort_artifact(tmp_path / "b", tiny_cnn(tmp_path / "any.onnx")))
    bucket = type(spec.buckets[0])(0, 4, ((1, 28, 28),))
    device = type(spec)(name="cpu", target="ort-cpu", artifacts=spec.artifacts, buckets=(bucket,), inline=True)

    async def main() -> None:
        async with engine_of([device], signature, module=REAL, inline="always") as lab:
            for rows in (1, 4):
                got = await lab.ask(np.zeros((rows, 1, 28, 28), np.float32))
                assert isinstance(got, Got)
                assert got.shapes == ((rows, 10),)
            assert [batch.inline for batch in lab.of(BatchRan)] == [False, True]

    run(main())


def test_only_measured_short_plain_and_ready_models_are_worth_it(tmp_path: Path) -> None:
    spec, signature = served(ort_artifact(tmp_path / "a", tiny_cnn(tmp_path / "tiny.onnx")), inline=True)
    words, text = served(ort_artifact(tmp_path / "t", identity(tmp_path / "t.onnx", TensorProto.STRING)), inline=True)

    async def main() -> None:
        async with engine_of([spec], signature, module=REAL) as lab:
            replicas = lab.engine.replicas.all
            assert worth_it(replicas, "always", signature) is replicas[0]
            assert worth_it(replicas, "never", signature) is None
            assert worth_it(replicas, "always", text) is None
            replicas[0].ready = False
            assert worth_it(replicas, "always", signature) is None
            replicas[0].ready = True
        async with engine_of([words], text, module=REAL, inline="always") as lab:
            assert worth_it(lab.engine.replicas.all, "always", signature) is not None

    run(main())
