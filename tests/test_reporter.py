"""What a run cost for nothing is told in the elements of its inputs, whichever axis was filled up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine_lab import ANY_ROWS, REAL, Got, engine_of, hostile, row, run, served
from npuops.runtime.buckets import AxisPadding, Bucket
from npuops.runtime.facts import BatchRan
from npuops.runtime.signature import Port, Signature
from served_artifacts import ort_artifact, tiny_cnn

TEXT = Signature(
    inputs=(Port(name="x", dtype="float32", shape=(-1, -1)),),
    outputs=(Port(name="y", dtype="float32", shape=(-1, -1)),),
    batched=True,
    max_rows=4,
)
FILL = AxisPadding(values=(0.0,))
FIXED = (Bucket(0, 4, ((8,),)),)


@pytest.mark.parametrize(
    ("buckets", "rows", "length", "told"),
    [
        (FIXED, 4, 8, (0, 32, 0)),
        (FIXED, 1, 8, (3, 8, 24)),
        (FIXED, 4, 6, (0, 24, 8)),
        (FIXED, 3, 5, (1, 15, 17)),
        ((Bucket(0, None, ((8,),)),), 2, 6, (0, 12, 4)),
        ((Bucket(0, None, ((-1,),)),), 2, 6, (0, 12, 0)),
    ],
    ids=["full", "rows", "axis", "both", "axis of free rows", "all free"],
)
def test_rows_and_axes_that_were_filled_up_are_told(
    buckets: tuple[Bucket, ...], rows: int, length: int, told: tuple[int, int, int]
) -> None:
    async def main() -> None:
        async with engine_of([hostile(buckets=buckets)], TEXT, padding=FILL) as lab:
            got = await lab.ask(np.zeros((rows, length), np.float32))
            assert isinstance(got, Got), got
            (batch,) = lab.of(BatchRan)
            assert (batch.padded_rows, batch.elements, batch.padded_elements) == told

    run(main())


def test_requests_that_share_a_run_are_added_up() -> None:
    async def main() -> None:
        async with engine_of([hostile(buckets=ANY_ROWS)]) as lab:
            asked = [lab.ask(row(value, rows=2)) for value in range(6)]
            for each in asked:
                assert isinstance(await each, Got)
            ran = lab.of(BatchRan)
            assert sum(batch.elements for batch in ran) == 6 * 2 * 4
            assert all(batch.padded_elements == 0 for batch in ran)

    run(main())


@pytest.mark.parametrize("inline", ["always", "never"])
def test_what_is_computed_in_this_process_is_told_like_what_a_worker_computes(tmp_path: Path, inline: str) -> None:
    spec, signature = served(ort_artifact(tmp_path / "a", tiny_cnn(tmp_path / "tiny.onnx")), inline=True)

    async def main() -> None:
        async with engine_of([spec], signature, module=REAL, inline=inline) as lab:
            assert isinstance(await lab.ask(np.zeros((3, 1, 28, 28), np.float32)), Got)
            (batch,) = lab.of(BatchRan)
            assert (batch.inline, batch.elements, batch.padded_elements) == (inline == "always", 3 * 784, 0)

    run(main())
