"""Whatever happens: every request that is not cancelled is answered exactly once, with its own value or an error."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hostile_worker as order
from engine_lab import COLUMNS, Got, Lab, engine_of, hostile, in_time, run
from npuops.errors import NpuopsError
from npuops.runtime.buckets import Bucket
from npuops.runtime.signature import Port, Signature

FREE = Signature(
    inputs=(Port(name="x", dtype="float32", shape=(-1, -1)),),
    outputs=(Port(name="y", dtype="float32", shape=(-1, -1)),),
    batched=True,
    max_rows=8,
)
BUCKETS = (Bucket(0, None, ((-1,),)), Bucket(1, 4, ((COLUMNS,),)))
ORDERS = (order.REFUSE, order.RAISE, order.KILL, order.LOSE, order.TWICE, order.SHORT, order.OUTSIDE, order.SLOW)

action = st.tuples(
    st.sampled_from(["ask"] * 12 + ["cancel"] * 2 + ["order", "kill", "pause", "late", "strange"]),
    st.integers(1, 5),
    st.sampled_from([COLUMNS, COLUMNS, 3, 7]),
    st.sampled_from(["a", "b", "c"]),
    st.integers(0, 2),
)


async def story(lab: Lab, actions: list[tuple[str, int, int, str, int]], chance: random.Random) -> None:
    asked: list[tuple[Any, asyncio.Future[Got | NpuopsError], np.ndarray[Any, Any]]] = []
    cancelled: set[int] = set()
    orders = 0
    for number, (what, rows, columns, tenant, priority) in enumerate(actions):
        if what == "cancel" and asked:
            index = chance.randrange(len(asked))
            if not asked[index][1].done():
                lab.engine.cancel(asked[index][0])
                cancelled.add(index)
        elif what == "kill":
            alive = [replica.pid for replica in lab.engine.replicas.all if replica.ready]
            if alive:
                os.kill(chance.choice(alive), signal.SIGKILL)
        elif what == "pause":
            await asyncio.sleep(chance.random() * 0.01)
        else:
            array = np.full((rows, columns), number, np.float32)
            array[:, -1] = np.arange(rows) + 1000 * number
            if what == "order" and orders < 2:
                orders += 1
                array[0, 0] = chance.choice(ORDERS)
            parts = [array.tobytes()[:-4]] if what == "strange" else None
            deadline = {"deadline_us": in_time(chance.choice([0.0, 0.005, 0.5]))} if what == "late" else {}
            job, future = lab.send([array], parts, tenant=tenant, priority=priority, **deadline)
            asked.append((job, future, array))
    assert await lab.engine.drain(50.0), "something is stuck"
    for index, (_, future, array) in enumerate(asked):
        if index in cancelled:
            assert not future.done()
            continue
        assert lab.answered[index + 1] == 1
        got = future.result()
        if isinstance(got, Got):
            np.testing.assert_array_equal(got.outputs[0], array + 1)
            assert got.shapes == (array.shape,)
        else:
            assert isinstance(got, NpuopsError)
    assert lab.engine.in_flight == 0
    assert lab.engine.queued_bytes == 0


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(actions=st.lists(action, min_size=30, max_size=150), seed=st.integers(0, 1 << 30))
def test_every_request_is_answered_once_with_its_own_value(
    actions: list[tuple[str, int, int, str, int]], seed: int
) -> None:
    async def main() -> None:
        artifacts = (Path("any"), Path("four"))
        devices = [hostile(name, buckets=BUCKETS, artifacts=artifacts) for name in ("a", "b")]
        async with engine_of(devices, FREE, spares=2, max_request_bytes=1 << 16, run_limit_s=5.0) as lab:
            for replica in lab.engine.replicas.all:
                lab.engine.replicas._backoffs[replica.spec.name]._healthy_s = 0.0  # each restart at once
            await story(lab, actions, random.Random(seed))  # noqa: S311 - a story, no secret

    run(main())


def test_a_long_story_without_kills_is_answered_in_full() -> None:
    async def main() -> None:
        chance = random.Random(7)  # noqa: S311 - a story, no secret
        device = hostile(buckets=BUCKETS, artifacts=(Path("any"), Path("four")))
        async with engine_of([device], FREE, max_request_bytes=1 << 16) as lab:
            words = ["ask"] * 20 + ["cancel", "pause", "late", "strange"]
            actions = [
                (chance.choice(words), chance.randint(1, 5), chance.choice([COLUMNS, 3, 7]), chance.choice("abc"), 0)
                for _ in range(1500)
            ]
            await story(lab, actions, chance)

    run(main())
