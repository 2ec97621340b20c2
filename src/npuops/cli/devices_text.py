"""The devices as a page for people: one table, the reasons of health, the tenants, or what to do without a device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from npuops.devices.discovery import find_driverless, looked_in
from npuops.devices.failure_modes import FAILURE_MODES
from npuops.devices.health import Health
from npuops.devices.quantities import Quantity
from npuops.errors import NpuopsError
from npuops.units import format_bytes
from npuops.vnpu.device_folder import all_folders, devices_home

if TYPE_CHECKING:
    from npuops.devices.sampler import Sample
    from npuops.devices.tree import Tree

UNKNOWN: Final = "-"
_COLOURS: Final = {
    Health.HEALTHY: "green",
    Health.DEGRADED: "yellow",
    Health.UNHEALTHY: "red",
    Health.GONE: "red",
    Health.UNKNOWN: "",
}
_NO_DEVICE: Final = (
    "An NPU shows up when its driver is loaded: intel_vpu (Intel), amdxdna (AMD), qaic (Qualcomm Cloud AI), "
    "habanalabs, apex (Coral), hailo_pci, rknpu or rocket (Rockchip), ethosu (Arm). "
    "In a container, /sys and the device's node must be passed in."
)
_ENDLESS: Final = 10_000


def whole_page(tree: Tree, samples: tuple[Sample, ...]) -> RenderableType:
    """Everything there is to say about one look at the machine."""
    parts: list[RenderableType] = []
    if samples:
        parts = [_table(samples), Text(), _lines([row for sample in samples for row in _findings(sample)])]
    else:
        parts.append(Text(f"no NPU found in {', '.join(looked_in(tree))}"))
    if any(sample.tenants for sample in samples):
        parts += [Text(), _tenants(samples)]
    driverless = [
        (each.address, f"{each.model or each.pci_id} has no driver{_cure(each.module)}")
        for each in find_driverless(tree)
    ]
    if driverless:
        parts += [Text(), _lines(driverless)]
    elif not samples:
        parts += [Text(_NO_DEVICE), Text(_virtual_ones())]
    return Group(*parts)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table; where the screen is too narrow for it, a block of lines for each of its rows."""

    words: Sequence[str]
    """Headings of the columns on the left."""
    figures: Sequence[str]
    """Headings of those on the right."""
    rows: Sequence[Sequence[str | Text]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rich's protocol."""
        table = Table(box=None, pad_edge=False)
        for heading in self.words:
            table.add_column(heading)
        for heading in self.figures:
            table.add_column(heading, justify="right")
        for row in self.rows:
            table.add_row(*row)
        if Measurement.get(console, options.update(width=_ENDLESS), table).maximum <= options.max_width:
            yield table
            return
        for number, row in enumerate(self.rows):
            if number:
                yield Text()
            yield _lines(zip((*self.words, *self.figures), row, strict=True))


def _virtual_ones() -> str:
    """Where to see those that are up, or how to get one."""
    try:
        home, names = devices_home(), [folder.name for folder in all_folders() if folder.is_up()]
    except NpuopsError:  # it says so to whoever wants a virtual device
        names = []
    if names:
        return f"Virtual NPUs are up ({', '.join(names)}): npuops devices --root {home}"
    return "Without one, a virtual NPU does: npuops device up vnpu:rk3588 --name npu0"


def _cure(module: str) -> str:
    return f": modprobe {module}, then look at dmesg for its firmware" if module else ": npuops knows none for it"


def _table(samples: tuple[Sample, ...]) -> Sheet:
    rows = []
    for sample in samples:
        device, health = sample.device, sample.condition.health
        rows.append(
            (
                Text(device.name),
                Text(f"{device.vendor} {device.model or ''}".strip()),
                Text(f"{device.driver or UNKNOWN} {device.driver_version or ''}".strip()),
                Text(device.firmware or UNKNOWN),
                Text(health, style=_COLOURS[health]),
                _ratio(sample.value(Quantity.BUSY_RATIO)),
                _memory(sample),
                _clock(sample.value(Quantity.CLOCK)),
                _figure(sample.value(Quantity.TEMPERATURE), "°C"),
                _figure(sample.value(Quantity.POWER), "W"),
            )
        )
    headings = ("name", "device", "driver", "firmware", "health")
    return Sheet(headings, ("busy", "memory", "clock", "temp", "power"), rows)


def _findings(sample: Sample) -> list[tuple[str, str]]:
    """Why it is as healthy as it is, and what may be wrong with it."""
    now = {each.mode for each in sample.suspected}
    earlier = [each for each in sample.earlier if each.mode not in now]
    found = [(sample.device.name, _reason(sample))]
    for each in sample.suspected:
        found.append(("", f"suspect {each.mode} {each.name}: {'; '.join(each.evidence)}"))
        found.append(("", f"  {FAILURE_MODES[each.mode].first}"))
    if earlier:
        past = ", ".join(f"{'; '.join(each.evidence)} ({each.mode} {each.name})" for each in earlier)
        found.append(("", f"since its driver was loaded: {past}"))
    return found


def _reason(sample: Sample) -> str:
    device, condition = sample.device, sample.condition
    state = "" if condition.state.value == condition.health.value else f"{condition.state}: "
    seen = device.node is not None or device.driver == "vnpu" or condition.health is Health.GONE
    return f"{state}{condition.why}" + ("" if seen else "; there is no node in /dev to open")


def _lines(rows: Iterable[tuple[str, str | Text]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, words in rows:
        table.add_row(Text(label), Text(words) if isinstance(words, str) else words)
    return table


def _tenants(samples: tuple[Sample, ...]) -> Sheet:
    rows = [
        (
            Text(sample.device.name),
            _count(tenant.pid),
            Text(tenant.command or UNKNOWN),
            tenant.priority or UNKNOWN,
            _ratio(tenant.busy_ratio),
            _figure(tenant.busy_seconds, "s"),
            UNKNOWN if tenant.memory_bytes is None else format_bytes(tenant.memory_bytes),
            _count(tenant.submissions),
            _count(tenant.errors),
        )
        for sample in samples
        for tenant in sample.tenants
    ]
    headings = ("name", "pid", "command", "priority")
    return Sheet(headings, ("busy", "device time", "memory", "jobs", "errors"), rows)


def _count(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)


def _ratio(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0%}"


def _figure(value: float | None, unit: str) -> str:
    return UNKNOWN if value is None else f"{value:.1f} {unit}"


def _clock(hertz: float | None) -> str:
    """0 is what drivers show while the device sleeps."""
    if hertz is None:
        return UNKNOWN
    return "idle" if hertz == 0 else f"{hertz / 1e6:.0f} MHz"


def _memory(sample: Sample) -> str:
    used, total = sample.value(Quantity.MEMORY_USED), sample.value(Quantity.MEMORY_TOTAL)
    if used is None:
        return UNKNOWN
    return format_bytes(int(used)) + ("" if total is None else f" of {format_bytes(int(total))}")
