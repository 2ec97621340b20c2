"""The status of a virtual NPU as a page for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from npuops.units import format_bytes, format_us

if TYPE_CHECKING:
    from npuops.vnpu.device_telemetry import Telemetry


def status_page(name: str, uptime_us: int, seen: Telemetry) -> RenderableType:
    """Figures in a column, then one row for each tenant."""
    share = seen.busy_us / uptime_us if uptime_us else 0.0
    errors = f"{seen.ce_count} corrected, {seen.ue_count} uncorrected"
    refused = ", ".join(f"{count} by {why}" for why, count in seen.refusals.items() if count) or "none"
    lines = (
        ("device", f"{name}: {seen.name}, {seen.status} ({seen.why})"),
        ("versions", f"driver {seen.versions.driver}, firmware {seen.versions.firmware}"),
        ("up", f"{format_us(uptime_us)} of its own time, busy {share:.0%}"),
        ("clock", f"{seen.current_mhz:.0f} MHz now, {seen.cap_mhz:.0f} of {seen.max_mhz:.0f} MHz allowed"),
        ("heat", f"{seen.temperature_c:.1f} °C, {seen.heat}; off at {seen.critical_c:.0f} °C"),
        ("power", f"{seen.power_w:.2f} W, {seen.energy_uj / 1e6:.2f} J so far (modelled)"),
        ("memory", f"{format_bytes(seen.memory_used_bytes)} of {format_bytes(seen.memory_total_bytes)}"),
        ("largest free", format_bytes(seen.largest_free_bytes)),
        ("resets", f"{seen.resets}; throttled {seen.throttles} times, tripped {seen.trips} times"),
        ("errors", f"{errors}; canaries {seen.canary_failures} wrong of {seen.canary_runs}"),
        ("refused", refused),
    )
    table = Table.grid(padding=(0, 2, 0, 0))
    for label, words in lines:
        table.add_row(Text(label), Text(words))
    return Group(table, Text(), _tenants(seen)) if seen.contexts else table


def _tenants(seen: Telemetry) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("context", "process", "priority"):
        table.add_column(heading)
    for heading in ("device time", "memory", "jobs", "done", "errors", "pre-empted", "energy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in seen.contexts:
        table.add_row(
            str(each.id),
            str(each.pid),
            each.priority,
            format_us(each.busy_us),
            format_bytes(each.memory_bytes),
            *map(str, (each.submissions, each.completions, each.errors, each.preemptions)),
            f"{each.energy_mj:.1f} mJ",
        )
    return table
