"""A small chip, small programs, and a bench that drives a machine by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, TypeVar

from npuops.vnpu.device_events import DeviceEvent, JobCompleted
from npuops.vnpu.device_telemetry import ContextTelemetry, Telemetry
from npuops.vnpu.faults import Fault, Kind
from npuops.vnpu.machine import Machine
from npuops.vnpu.program import Program, Step
from npuops.vnpu.spec import MachineSpec, ThermalSpec
from npuops.vnpu.tenancy import Priority
from npuops.vnpu.versions import Part, Versions

MIB = 1024 * 1024
SECOND = 1_000_000
COMPILER = "6.1.0"

THERMAL = ThermalSpec(
    junction_r_c_per_w=4.0,
    junction_c_j_per_c=0.5,
    case_r_c_per_w=10.0,
    case_c_j_per_c=20.0,
    ambient_c=25.0,
    throttle_c=85.0,
    resume_c=75.0,
    critical_c=105.0,
)
"""6 W lead to 109 °C in the end: through the trip point, and, were nothing done, past the critical one."""

SPEC = MachineSpec(
    name="bench",
    cores=1,
    clock_points_mhz=(300.0, 600.0, 1000.0),
    dram_bytes=64 * MIB,
    sram_bytes=MIB,
    idle_w=0.5,
    busy_w=6.0,
    power_exponent=2.5,
    thermal=THERMAL,
    released=Versions(driver="1.2.0", firmware="3.4.5", compiler=COMPILER),
    boot_us=100_000,
    reset_us=50_000,
    time_slice_us=2_000,
)


FAULTS: Final = {
    "offline": Fault(kind=Kind.OFFLINE),
    "hang": Fault(kind=Kind.HANG),
    "reset": Fault(kind=Kind.RESET),
    "driver_crash": Fault(kind=Kind.DRIVER_CRASH),
    "thermal_trip": Fault(kind=Kind.THERMAL_TRIP),
    "ecc_corrected": Fault(kind=Kind.ECC_CORRECTED, count=3),
    "ecc_uncorrected": Fault(kind=Kind.ECC_UNCORRECTED, count=1),
    "oom_pressure": Fault(kind=Kind.OOM_PRESSURE, share=0.95),
    "poor scales": Fault(kind=Kind.WRONG_OUTPUT, op="Conv", rate=1.0, bit=0),
    "firmware bug": Fault(kind=Kind.WRONG_OUTPUT, op="Conv", rate=0.2, bit=6),
    "slow_dma": Fault(kind=Kind.SLOW_DMA, factor=4.0),
    "unsupported_op": Fault(kind=Kind.UNSUPPORTED_OP, op="Conv"),
    "old firmware": Fault(kind=Kind.VERSION_MISMATCH, part=Part.FIRMWARE, version="2.0.0"),
    "new compiler": Fault(kind=Kind.VERSION_MISMATCH, part=Part.COMPILER, version="7.0.0"),
    "noisy_neighbour": Fault(kind=Kind.NOISY_NEIGHBOUR, priority=Priority.NORMAL),
}
"""At least one of every kind."""


def program(
    duration_us: float = 10_000,
    *,
    steps: int = 10,
    memory_us: float = 0.0,
    ops: tuple[str, ...] = ("Conv",),
    **sizes: int,
) -> Program:
    """`steps` equal ones that last `duration_us` together, limited by computing unless `memory_us` is longer."""
    each = Step(
        name="step",
        op=ops[0],
        compute_us=duration_us / steps,
        memory_us=memory_us / steps,
        dram_bytes=1000,
    )
    bytes_ = {"weights_bytes": 4 * MIB, "activation_bytes": 1000, "input_bytes": 6000, "output_bytes": 100} | sizes
    return Program(
        steps=tuple(replace(each, name=f"step_{number}") for number in range(steps)), ops=frozenset(ops), **bytes_
    )


E = TypeVar("E", bound=DeviceEvent)


class Bench:
    """A machine and its clock; every event is kept.

    `tenant` opens a context with a program, `saturate` keeps tenants busy for a time, `every` sends jobs at a rate.
    """

    def __init__(self, spec: MachineSpec = SPEC, *, boot: bool = True, **options: Any) -> None:
        self.machine = Machine(spec, **options)
        self._compiler = spec.released.compiler
        self.now_us = 0
        self.events: list[DeviceEvent] = []
        if boot:
            self.to(spec.boot_us)

    def to(self, moment_us: int) -> None:
        self.now_us = max(self.now_us, moment_us)
        self.events += self.machine.advance(self.now_us)

    def wait(self, us: int) -> None:
        self.to(self.now_us + us)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def tenant(
        self, made: Program | None = None, priority: Priority = Priority.NORMAL, pid: int = 1
    ) -> tuple[int, int]:
        context = self.machine.open_context(pid, priority, self.now_us)
        return context, self.machine.load(context, made or program(), self._compiler, self.now_us)

    def submit(self, tenant: tuple[int, int], *, canary: bool = False) -> int:
        return self.machine.submit(*tenant, self.now_us, canary=canary)

    def run(self, tenant: tuple[int, int], *, canary: bool = False) -> JobCompleted:
        """One job to its end."""
        job = self.submit(tenant, canary=canary)
        while True:
            due_us = self.machine.next_event_us()
            assert due_us is not None
            self.to(due_us)
            done = [event for event in self.of(JobCompleted) if event.job == job]
            if done:
                return done[0]

    def saturate(self, tenants: list[tuple[int, int]], until_us: int) -> None:
        """Each tenant always has a job; a new one as soon as one is through."""
        by_context = dict(tenants)
        for tenant in tenants:
            self.submit(tenant)
        while True:
            due_us = self.machine.next_event_us()
            if due_us is None or due_us > until_us:
                self.to(until_us)
                return
            seen = len(self.events)
            self.to(due_us)
            for event in self.events[seen:]:
                if isinstance(event, JobCompleted) and event.context in by_context:
                    self.submit((event.context, by_context[event.context]))

    def every(self, tenant: tuple[int, int], period_us: int, until_us: int) -> None:
        while self.now_us + period_us <= until_us:
            self.submit(tenant)
            self.wait(period_us)

    def latencies_us(self, tenant: tuple[int, int]) -> list[float]:
        return [event.at_us - event.submitted_us for event in self.of(JobCompleted) if event.context == tenant[0]]

    def telemetry(self) -> Telemetry:
        return self.machine.telemetry(self.now_us)

    def context(self, tenant: tuple[int, int]) -> ContextTelemetry:
        return next(each for each in self.telemetry().contexts if each.id == tenant[0])
