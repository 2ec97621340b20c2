"""An engine with a fast and a slow device: who is let in, and who helps while much waits."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

import hostile_worker as order
from engine_lab import COLUMNS, Got, Lab, engine_of, hostile, in_time, row, run, until
from npuops.runtime.batch_curve import BatchCurve
from npuops.runtime.buckets import Bucket
from npuops.runtime.job import Job
from npuops.runtime.routing import Routing
from npuops.runtime.signature import Port, Signature, form_of

pytestmark = pytest.mark.slow
"""Worker processes."""

FAST_US = order.SLOW_S * 1e6
SLOW_US = 50 * FAST_US
DEVICES = ("slow", "fast")
ANY_COLUMNS = Signature(
    inputs=(Port(name="x", dtype="float32", shape=(-1, -1)),),
    outputs=(Port(name="y", dtype="float32", shape=(-1, -1)),),
    batched=True,
    max_rows=8,
)


def believe(lab: Lab, *, slow_us: float) -> None:
    """What the engine takes its devices for; in truth both are fast."""
    for replica in lab.engine.replicas.all:
        us = FAST_US if replica.spec.name == "fast" else slow_us
        replica.curves = (BatchCurve(((1, us),)),)
        replica.pace = 1.0


def a_job(lab: Lab) -> Job:
    return Job(form_of(lab.signature, [row(1.0).shape]), [row(1.0).tobytes()], lambda *_: None, 0)


async def answered_by(lab: Lab, count: int) -> set[str]:
    asked = [lab.ask(row(order.SLOW)) for _ in range(count)]
    found = await asyncio.gather(*asked)
    assert all(isinstance(each, Got) for each in found)
    return {each.device for each in found if isinstance(each, Got)}


def test_a_slow_device_does_not_send_away_whom_the_fast_one_answers_in_time() -> None:
    async def main() -> None:
        async with engine_of([hostile(name) for name in DEVICES]) as lab:
            believe(lab, slow_us=100e6)
            found = await lab.ask(row(1.0), deadline_us=in_time(30.0))
            assert isinstance(found, Got)
            assert found.device == "fast"

    run(main())


def test_a_device_that_is_never_chosen_makes_no_wait_shorter() -> None:
    async def main() -> None:
        async with engine_of([hostile(name) for name in DEVICES], batching=False) as lab:
            believe(lab, slow_us=SLOW_US)
            routing, both = Routing(lab.engine._options.fallback, ""), lab.engine.replicas.all
            alone = [each for each in both if each.spec.name == "fast"]
            waits = [routing.wait_us(each, a_job(lab), 100, 1.0) for each in (alone, both)]
            assert waits[0] == waits[1] == 101 * FAST_US
            believe(lab, slow_us=FAST_US)
            assert routing.wait_us(both, a_job(lab), 100, 1.0) == 51 * FAST_US

    run(main())


def test_with_a_spill_the_slow_device_helps_while_much_waits_and_without_it_never() -> None:
    async def main() -> None:
        async with engine_of([hostile(name) for name in DEVICES], batching=False) as lab:
            believe(lab, slow_us=SLOW_US)
            assert await answered_by(lab, 30) == {"fast"}
            lab.engine.reconfigure(replace(lab.engine._options, spill_us=2 * SLOW_US))
            believe(lab, slow_us=SLOW_US)
            assert await answered_by(lab, 10) == {"fast"}, "ten are done there before one would be on the slow one"
            believe(lab, slow_us=SLOW_US)
            assert await answered_by(lab, 120) == {"fast", "slow"}
            lab.engine.reconfigure(replace(lab.engine._options, spill_us=0.0))
            believe(lab, slow_us=SLOW_US)
            assert await answered_by(lab, 30) == {"fast"}

    run(main())


def test_who_waits_to_share_the_next_run_of_its_own_device_keeps_nobody_from_another() -> None:
    async def main() -> None:
        wide = (Bucket(0, None, ((COLUMNS + 1,),)),)
        async with engine_of([hostile("fast"), hostile("wide", buckets=wide)], ANY_COLUMNS) as lab:
            lab.engine.replicas.all[0].curves = (BatchCurve(((1, 20e6),)),)
            stopped = lab.ask(row(order.STOP))
            await until(lambda: lab.engine.queued == 0, "it has not begun")
            waits = lab.ask(row(1.0))
            found = await asyncio.wait_for(lab.ask(np.full((1, COLUMNS + 1), 2.0, np.float32)), 15.0)
            assert isinstance(found, Got)
            assert found.device == "wide"
            assert not stopped.done()
            assert not waits.done()

    run(main())
