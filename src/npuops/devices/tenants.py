"""Who uses a device, and how much of it: one noun for AMD's fdinfo and for the contexts of a virtual NPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One client of a device.

    Attributes:
        client: the driver's number of it, unique on the device.
        pid: of the process that holds it; None where the driver doesn't say.
        command: the process's name, None where it cannot be seen.
        priority: in the driver's words.
        busy_seconds: of device time so far, never falling.
        busy_ratio: of the time since the last look; None at the first.
        wait_seconds: so far, with work in its queue and none on the device: what the others cost it.
        memory_bytes: held now.
        submissions, completions, errors, preemptions: so far.
    """

    client: str
    pid: int | None = None
    command: str | None = None
    priority: str | None = None
    busy_seconds: float | None = None
    busy_ratio: float | None = None
    wait_seconds: float | None = None
    memory_bytes: int | None = None
    submissions: int | None = None
    completions: int | None = None
    errors: int | None = None
    preemptions: int | None = None


def with_ratios(tenants: Iterable[Tenant], before: Mapping[str, Tenant], interval_s: float) -> tuple[Tenant, ...]:
    """Each tenant with the share of the interval in which the device worked for it."""
    return tuple(
        replace(tenant, busy_ratio=_ratio(tenant, before.get(tenant.client), interval_s)) for tenant in tenants
    )


def _ratio(now: Tenant, before: Tenant | None, interval_s: float) -> float | None:
    if before is None or before.pid != now.pid or before.busy_seconds is None or now.busy_seconds is None:
        return None
    spent_s = now.busy_seconds - before.busy_seconds
    return min(spent_s / interval_s, 1.0) if interval_s > 0 and spent_s >= 0 else None
