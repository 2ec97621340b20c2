"""What a device shows at a moment: everything that the sysfs-shaped tree holds, and what the demo prints. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from npuops.vnpu.firmware import Measurements
from npuops.vnpu.life import STATUS, Life
from npuops.vnpu.thermal import Heat
from npuops.vnpu.versions import Versions


class Refusal(StrEnum):
    """Why a device didn't take a program or a job."""

    MEMORY = "memory"
    OPERATOR = "operator"
    VERSION = "version"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextTelemetry:
    """One tenant; counters since the context was opened.

    Attributes:
        busy_us: of cores, so two cores for a second are two seconds.
        wait_us: with a job in the queue and none on a core: what others cost it.
        energy_mj: above the idle power of the device.
        queued, running: jobs now.
    """

    id: int
    pid: int
    priority: str
    busy_us: float
    wait_us: float
    memory_bytes: int
    queued: int
    running: int
    submissions: int
    completions: int
    errors: int
    preemptions: int
    energy_mj: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """The whole device; counters since it was switched on.

    Attributes:
        why: the reason of the state, in words.
        heat: what the trip points say.
        versions: in force: the released ones, unless a fault or a firmware image changed one.
        measurements: of the firmware image that is booted; None without one, or when it was refused.
        busy_us: with at least one job on a core, so never faster than time.
        core_busy_us: of all cores; the contexts' and the departed ones' add up to it.
        current_mhz: 0 when nothing runs.
        throttle_c, critical_c: heat lowers the clock, and switches the device off, from here on.
        cap_mhz: highest clock that the governor allows now.
        energy_uj: the integral of `power_w`.
        idle_energy_uj: the part of it that no context pays.
        commanded_resets: of the resets, those that somebody ordered of a device that was not hung: nothing was wrong.
        throttles: how often heat has lowered the clock.
        trips: how often the critical temperature has switched the device off.
        completions: jobs that are through, those of closed contexts too.
        refusals: programs and jobs that the device didn't take; for their version also boots of a firmware.
        canary_runs, canary_failures: jobs whose right answer is known, and those that came out wrong.
        dram_bytes: moved by steps that are over.
        departed_busy_us, departed_energy_mj: of contexts that are closed.
    """

    name: str
    life: Life
    why: str
    heat: Heat
    versions: Versions
    measurements: Measurements | None
    busy_us: float
    core_busy_us: float
    memory_used_bytes: int
    memory_total_bytes: int
    largest_free_bytes: int
    current_mhz: float
    cap_mhz: float
    min_mhz: float
    max_mhz: float
    temperature_c: float
    case_c: float
    throttle_c: float
    critical_c: float
    power_w: float
    energy_uj: float
    idle_energy_uj: float
    resets: int
    commanded_resets: int
    throttles: int
    trips: int
    ce_count: int
    ue_count: int
    completions: int
    refusals: Mapping[Refusal, int]
    canary_runs: int
    canary_failures: int
    dram_bytes: int
    contexts: tuple[ContextTelemetry, ...]
    departed_busy_us: float
    departed_energy_mj: float

    @property
    def status(self) -> str:
        """The word of the tree's `status` file."""
        return STATUS[self.life]

    @property
    def present(self) -> bool:
        """Whether there is a tree at all."""
        return self.life is not Life.GONE
