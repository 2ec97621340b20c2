"""Requests that are shorter than an artifact along other axes than that of the batch: filled up, and cut back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from engine_lab import REAL, Got, Lab, engine_of, run, served
from npuops.artifacts.manifest import Artifact
from npuops.errors import DataError, OptionError
from npuops.runtime.buckets import AxisPadding, Bucket, Crop
from npuops.runtime.delivery import Delivery
from npuops.runtime.facts import BatchRan
from npuops.runtime.gathering import Gatherer
from npuops.runtime.replica import DeviceSpec
from npuops.runtime.signature import Port, Signature
from npuops.runtime.slots import geometry_of
from served_artifacts import ort_artifact, save

FREE = Port(name="x", dtype="float32", shape=(-1, -1, 2))
SUM = Port(name="s", dtype="float32", shape=(-1, 2))
SIGNATURE = Signature(
    inputs=(FREE,),
    outputs=(Port(name="y", dtype="float32", shape=(-1, -1, 2)), SUM),
    batched=True,
    max_rows=4,
)
PADDING = AxisPadding(values=(100.0,), crops=(Crop(output=0, axis=1, input=0, input_axis=1),))


def tokens(folder: Path, length: int, rows: int | str) -> Artifact:
    """`y = 2 x`, and `s`, the largest along the tokens: it shows what a row was filled up with."""
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "x"], ["y"]),
            helper.make_node("ReduceMax", ["x"], ["s"], axes=[1], keepdims=0),
        ],
        "tokens",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, length, 2])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, length, 2]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, [rows, 2]),
        ],
    )
    path = save(folder / f"tokens{length}.onnx", graph)
    return ort_artifact(folder / f"a{length}", path)


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["N", 4])
def test_short_requests_share_a_longer_artifact_and_get_their_own_corner(tmp_path: Path, rows: int | str) -> None:
    made = [tokens(tmp_path, length, rows) for length in (4, 8)]
    fixed = None if rows == "N" else 4
    device = DeviceSpec(
        name="cpu",
        target="ort-cpu",
        artifacts=tuple(artifact.root for artifact in made),
        buckets=(Bucket(0, fixed, ((4, 2),)), Bucket(1, fixed, ((8, 2),))),
    )

    async def ask(lab: Lab, length: int, value: float, rows: int) -> None:
        array = np.full((rows, length, 2), value, np.float32) + np.arange(rows, dtype=np.float32)[:, None, None]
        got = await lab.ask(array)
        assert isinstance(got, Got), got
        assert got.shapes == ((rows, length, 2), (rows, 2))
        np.testing.assert_array_equal(got.outputs[0], array * 2)
        filled = length not in {4, 8}
        np.testing.assert_array_equal(got.outputs[1], np.full((rows, 2), 100.0) if filled else array[:, 0])

    async def main() -> None:
        async with engine_of([device], SIGNATURE, module=REAL, padding=PADDING) as lab:
            await asyncio.gather(
                *(
                    ask(lab, length, number, 1 + number % 3)
                    for number, length in enumerate([3, 4, 5, 8, 1, 7, 3, 3] * 3)
                )
            )
            too_long = await lab.ask(np.zeros((1, 9, 2), np.float32))
            assert isinstance(too_long, DataError)
            assert sum(batch.rows for batch in lab.of(BatchRan)) == sum(1 + number % 3 for number in range(24))

    run(main())


def test_a_model_without_a_batch_is_filled_up_too(tmp_path: Path) -> None:
    spec, _ = served(tokens(tmp_path, 8, 1))
    one = Signature(
        inputs=(Port(name="x", dtype="float32", shape=(1, -1, 2)),),
        outputs=SIGNATURE.outputs,
        batched=False,
        max_rows=1,
    )

    async def main() -> None:
        async with engine_of([spec], one, module=REAL, padding=PADDING) as lab:
            array = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
            got = await lab.ask(array)
            assert isinstance(got, Got), got
            assert got.shapes[0] == (1, 3, 2)
            np.testing.assert_array_equal(got.outputs[0], array * 2)

    run(main())


def test_text_is_neither_filled_up_nor_cut() -> None:
    words = Port(name="t", dtype="string", shape=(-1, -1))
    signature = Signature(inputs=(words,), outputs=(words,), batched=True, max_rows=1)
    geometry = geometry_of(signature, rows=1, slots=1, free_bytes=4096)
    with pytest.raises(OptionError, match="text"):
        Gatherer(geometry, signature, AxisPadding(values=(0.0,)))
    with pytest.raises(OptionError, match="text"):
        Delivery(signature, AxisPadding(values=(None,), crops=(Crop(0, 1, 0, 1),)))
