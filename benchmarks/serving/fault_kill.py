"""SIGKILL of the process that runs the model, under load."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from itertools import pairwise

from client import outcomes
from subject import Result, Subject, closed

CLIENTS = 8
BEFORE_S = 1.5
AFTER_S = 6.5


async def kill(subject: Subject) -> Result:
    """8 closed-loop clients; the worker (or the only process) is killed; what fails afterwards, and for how long."""
    call = subject.call()
    async with closed(subject, lambda: call, CLIENTS) as samples:
        await asyncio.sleep(BEFORE_S)
        worker = await asyncio.to_thread(subject.server.worker, subject.peer.worker)
        killed_s = time.monotonic()
        os.kill(worker or subject.server.pid, signal.SIGKILL)
        await asyncio.sleep(AFTER_S)
    after = [sample for sample in samples if sample.done_s >= killed_s]
    good = sorted([killed_s, *(sample.done_s for sample in after if sample.outcome == "ok")])
    gap_s = max((later - earlier for earlier, later in pairwise(good)), default=AFTER_S)
    recovered = good[-1] > killed_s + AFTER_S - 0.5
    return {
        "killed": "worker" if worker else "whole server",
        "under way then": sum(sample.due_s < killed_s for sample in after),
        "answered before": len(samples) - len(after),
        "answered after": len(good) - 1,
        "failed after": outcomes(sample for sample in after if sample.outcome != "ok") or 0,
        "longest gap s": round(gap_s, 3) if recovered else f"never (within {AFTER_S} s)",
    }
