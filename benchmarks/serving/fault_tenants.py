"""One tenant asks for ten times its share: do the others wait?"""

from __future__ import annotations

import asyncio
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import uvloop
from client import Call, Sample, open_loop, outcomes, percentile_ms
from subject import Result, Subject, capacity

HEADER = "x-npuops-tenant"
"""Servers that know no tenants ignore it: their figure shows what the isolation is worth."""
SECONDS = 8.0
QUIET_SHARE = 0.25
NOISY_SHARE = 0.5
"""Of the capacity: two tenants of equal weight have half each."""


async def tenants(subject: Subject) -> Result:
    """A quiet tenant at a quarter of the capacity, beside a noisy one: silent, within its share, at ten times it.

    The noise comes from a process of its own: what it costs to make must not look like the quiet tenant's latency.
    """
    full_per_s = await capacity(subject)
    quiet, noisy = (subject.call({HEADER: name}) for name in ("quiet", "noisy"))
    found: Result = {"capacity /s": round(full_per_s, 1)}
    p99 = {}
    with ProcessPoolExecutor(1, get_context("spawn")) as noise:
        noise.submit(flood, subject.port, noisy.data, 1.0, 0.1).result()  # it has imported what it needs
        for name, times in (("alone", 0), ("noisy 1x", 1), ("noisy 10x", 10)):
            samples: list[Sample] = []
            loud_per_s = times * NOISY_SHARE * full_per_s
            other = noise.submit(flood, subject.port, noisy.data, loud_per_s, SECONDS) if times else None
            await open_loop(subject.port, lambda: quiet, QUIET_SHARE * full_per_s, SECONDS, samples)
            p99[name] = percentile_ms(samples, 99)
            found[f"{name}: p50/p99 ms"] = f"{percentile_ms(samples, 50)}/{p99[name]}"
            failed = outcomes(sample for sample in samples if sample.outcome != "ok")
            found[f"{name}: quiet failed"] = failed or 0
            if other is not None:
                found[f"{name}: noisy's outcomes"] = await asyncio.wrap_future(other)
            await asyncio.sleep(2)
    found["p99 10x / 1x"] = (
        round(p99["noisy 10x"] / p99["noisy 1x"], 2) if p99["noisy 10x"] and p99["noisy 1x"] else None
    )
    return found


def flood(port: int, data: bytes, per_s: float, seconds: float) -> dict[str, int]:
    """An open loop in this process; how many requests had which outcome."""
    samples: list[Sample] = []
    call = Call(data, lambda answer: "")  # noqa: ARG005 - right or wrong, nobody asks the noise
    uvloop.run(open_loop(port, lambda: call, per_s, seconds, samples, seed=12))
    return outcomes(samples)
