"""The kernel's timer in an event loop."""

from __future__ import annotations

import asyncio
import time

from npuops.loadgen.load_worker import run_loop
from npuops.loadgen.precise_timer import PreciseTimer


def test_it_rings_once_and_never_early() -> None:
    async def main() -> list[float]:
        rings: list[float] = []
        rung = asyncio.Event()

        def ring() -> None:
            rings.append(time.perf_counter())
            rung.set()

        timer = PreciseTimer(asyncio.get_running_loop(), ring)
        due = time.perf_counter() + 0.01
        timer.arm(due)
        await asyncio.wait_for(rung.wait(), 10)
        assert rings[0] >= due
        rung.clear()
        timer.arm(due)  # over already: at once
        await asyncio.wait_for(rung.wait(), 10)
        timer.close()
        return rings

    assert len(run_loop(main)) == 2
