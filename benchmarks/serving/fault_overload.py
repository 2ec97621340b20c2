"""Four times as many requests as the server can answer, whatever it says."""

from __future__ import annotations

import asyncio
import os

from client import Sample, open_loop, outcomes, percentile_ms
from subject import MemoryPeak, Result, Subject, capacity, closed

TIMES = 4
SECONDS = 5.0
DEADLINE_S = 0.5
DEADLINE_HEADERS = {
    name: os.environ.get("NPUOPS_DEADLINE_HEADER", "x-request-timeout-ms") for name in ("npuops", "npuops-repository")
}
"""Server → header that takes a deadline in milliseconds; the others have none."""


async def overload(subject: Subject) -> Result:
    """Capacity and unloaded p99 first; then the open loop: goodput within the deadline, latency, memory."""
    header = DEADLINE_HEADERS.get(subject.peer.name)
    call = subject.call({header: str(round(DEADLINE_S * 1000))} if header else None)
    async with closed(subject, lambda: call, 1) as unloaded:
        await asyncio.sleep(2)
    full_per_s = await capacity(subject)
    before = subject.server.usage()
    flood: list[Sample] = []
    async with MemoryPeak(subject.server) as peak:
        await open_loop(subject.port, lambda: call, TIMES * full_per_s, SECONDS, flood)
    await asyncio.sleep(2)
    useful = sum(sample.outcome == "ok" and sample.latency_s <= DEADLINE_S for sample in flood) / SECONDS
    p99_alone, p99_flood = percentile_ms(unloaded, 99), percentile_ms(flood, 99)
    limit_ms = 3 * (p99_alone or 0) + 1000 * DEADLINE_S
    return {
        "capacity /s": round(full_per_s, 1),
        f"goodput /s (≤ {DEADLINE_S} s)": round(useful, 1),
        "goodput/capacity": round(useful / full_per_s, 3) if full_per_s else None,
        "outcomes": outcomes(flood),
        "unloaded p99 ms": p99_alone,
        "accepted p50 ms": percentile_ms(flood, 50),
        "accepted p99 ms": p99_flood,
        "p99 ≤ 3x unloaded + deadline": "met" if p99_flood is not None and p99_flood <= limit_ms else "missed",
        "PSS MiB before/peak/after": f"{before.pss_mib:.0f}/{peak.pss_mib:.0f}/{subject.server.usage().pss_mib:.0f}",
        "half capacity 2 s later": "yes" if await capacity(subject, 1.0) > full_per_s / 2 else "no",
    }
