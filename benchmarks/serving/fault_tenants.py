"""One tenant asks for ten times its share: do the others wait?"""

from __future__ import annotations

import asyncio

from client import Call, Sample, open_loop, outcomes, percentile_ms
from subject import Result, Subject, capacity

HEADER = "x-npuops-tenant"
"""Servers that know no tenants ignore it: their figure shows what the isolation is worth."""
SECONDS = 8.0
QUIET_SHARE = 0.25
NOISY_SHARE = 0.5
"""Of the capacity: two tenants of equal weight have half each."""


async def tenants(subject: Subject) -> Result:
    """A quiet tenant at a quarter of the capacity, beside a noisy one: silent, within its share, at ten times it."""
    full_per_s = await capacity(subject)
    quiet, noisy = (subject.call({HEADER: name}) for name in ("quiet", "noisy"))
    found: Result = {"capacity /s": round(full_per_s, 1)}
    p99 = {}
    for name, times in (("alone", 0), ("noisy 1x", 1), ("noisy 10x", 10)):
        samples, other = await both(subject, quiet, noisy, full_per_s, times)
        p99[name] = percentile_ms(samples, 99)
        found[f"{name}: p50/p99 ms"] = f"{percentile_ms(samples, 50)}/{p99[name]}"
        failed = outcomes(sample for sample in samples if sample.outcome != "ok")
        found[f"{name}: quiet failed"] = failed or 0
        if times == 10:
            found["noisy's outcomes at 10x"] = outcomes(other)
        await asyncio.sleep(2)
    found["p99 10x / 1x"] = (
        round(p99["noisy 10x"] / p99["noisy 1x"], 2) if p99["noisy 10x"] and p99["noisy 1x"] else None
    )
    return found


async def both(
    subject: Subject, quiet: Call, noisy: Call, full_per_s: float, times: int
) -> tuple[list[Sample], list[Sample]]:
    """The quiet tenant's samples and the noisy one's."""
    samples: list[Sample] = []
    other: list[Sample] = []
    loads = [open_loop(subject.port, lambda: quiet, QUIET_SHARE * full_per_s, SECONDS, samples)]
    if times:
        loads.append(open_loop(subject.port, lambda: noisy, times * NOISY_SHARE * full_per_s, SECONDS, other, seed=12))
    await asyncio.gather(*loads)
    return samples, other
