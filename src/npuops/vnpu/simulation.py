"""The events of one device in the order of time: its life, its faults, its heat and its jobs. Pure.

`machine.py` is the door; this is what goes on behind it. After every event the device is settled anew: who is on the
cores, at which pace, with how much power. Of two events at the same moment the order is: faults, boot and reset,
heat, jobs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from npuops.errors import ArtifactError, DeviceError, OptionError
from npuops.vnpu.climate import Climate
from npuops.vnpu.conditions import conditions
from npuops.vnpu.device_events import (
    ClockChanged,
    ContextLost,
    DeviceEvent,
    Failure,
    FaultBegan,
    FaultEnded,
    FaultHadNoEffect,
    JobCompleted,
    JobFailed,
    LifeChanged,
    MemoryErrors,
)
from npuops.vnpu.fault_plan import FaultPlan
from npuops.vnpu.faults import Fault, Kind
from npuops.vnpu.firmware import BootRom, Measurements, read_header
from npuops.vnpu.intruders import Intruders
from npuops.vnpu.jobs import Jobs
from npuops.vnpu.life import NEXT, Life, Signal, next_life
from npuops.vnpu.spec import MachineSpec
from npuops.vnpu.tenancy import Job, Pace
from npuops.vnpu.thermal import Heat, Trip
from npuops.vnpu.versions import Versions, driver_mismatch

POWERED: Final = frozenset({Life.BOOTING, Life.READY, Life.HUNG, Life.RESETTING})
"""States in which the chip is under the driver's control, with what it holds in memory."""

BOOTED: Final = frozenset({Life.READY, Life.HUNG})
"""States in which a firmware runs."""

_KEEP_DOWN: Final = frozenset({Kind.OFFLINE, Kind.DRIVER_CRASH})

_SIGNALS: Final[Mapping[Kind, Signal]] = MappingProxyType(
    {
        Kind.OFFLINE: Signal.OFFLINE,
        Kind.HANG: Signal.HANG,
        Kind.RESET: Signal.RESET,
        Kind.DRIVER_CRASH: Signal.CRASH,
        Kind.THERMAL_TRIP: Signal.TRIP,
        Kind.ECC_UNCORRECTED: Signal.RESET,
    }
)
"""Faults that change the device's life; it must be in a state that can take the signal."""


class Simulation:
    """One device, driven by `run_until`.

    Attributes:
        now_ns: how far it has been driven.
        life, why: the state and its reason.
        counts: of resets, commanded resets, trips, ce, ue, completions, canary runs and failures, boots refused for
            their version.
        measurements: of what is booted; None where nothing is, or nothing is measured.
        rom: what the next boot takes.
    """

    def __init__(self, spec: MachineSpec, seed: int, start_us: int, plan: FaultPlan, rom: BootRom | None) -> None:
        self.spec = spec
        self.now_ns = start_us * 1000
        self.life, self.why = Life.BOOTING, "switched on"
        self.counts: Counter[str] = Counter()
        self.measurements: Measurements | None = None
        self.climate = Climate(spec, self.now_ns)
        self._conditions = conditions(())
        self.jobs = Jobs(spec, self._pace(), self._report)
        self._intruders = Intruders(spec, self.jobs)
        self.rom = rom
        self._firmware = spec.released.firmware
        self._seed = seed
        self._events: list[DeviceEvent] = []
        self._booted_ns: int | None = self.now_ns + spec.boot_us * 1000
        self._plan = FaultPlan(tuple(replace(fault, at_us=fault.at_us + start_us) for fault in plan.faults))
        self._fault_ns = self._next_fault_ns(start_us - 1)
        self._kept_down_by: list[Fault] = []
        self._lasting: set[int] = set()
        self.settle()

    def versions(self, compiler: str | None = None) -> Versions:
        """In force now, with the compiler of a program in the place of the released one."""
        released = self.spec.released
        return self._conditions.changed(
            replace(released, firmware=self._firmware, compiler=compiler or released.compiler)
        )

    @property
    def unsupported(self) -> frozenset[str]:
        """Operators that a fault has taken away."""
        return self._conditions.unsupported

    def run_until(self, now_us: int) -> None:
        """Work off what happens up to and including this moment.

        Raises:
            OptionError: the moment is in the past.
        """
        limit_ns = now_us * 1000
        if limit_ns < self.now_ns:
            raise OptionError(f"time goes back: {now_us} µs after {self.now_ns / 1000} µs")
        while (due := self._next_event(limit_ns)) is not None and due[0] <= limit_ns:
            self.now_ns, handler = due
            handler()
            self.settle()
        self.now_ns = limit_ns

    def next_ns(self) -> int | None:
        """When the next event is due, if nobody calls before; None: nothing will happen."""
        due = self._next_event()
        return None if due is None else due[0]

    def taken_events(self) -> tuple[DeviceEvent, ...]:
        """What has been reported since the last time."""
        events, self._events = tuple(self._events), []
        return events

    def settle(self) -> None:
        """What follows from any change: cores, power."""
        cores = self.jobs.cores
        if self.life is Life.READY:
            self._intruders.feed(self.now_ns)
            self.jobs.dispatch(self.now_ns)
        self.jobs.bill_waiting(self.now_ns)
        powered = self.life in POWERED or self.life is Life.GONE
        self.climate.load(cores.working if powered else None, self.now_ns)

    def signal(self, signal: Signal, why: str, failure: Failure = Failure.DEVICE_LOST) -> None:
        """Move along the life's table.

        Raises:
            DeviceError: the table has no such pair; nothing happened.
        """
        before, self.life = self.life, next_life(self.life, signal)
        self.why, self._booted_ns, self._kept_down_by = why, None, []
        if self.life not in BOOTED:
            self.measurements = None
        self._report(LifeChanged(at_us=self._now_us, before=before, after=self.life, why=why))
        if self.life is Life.HUNG:
            self.jobs.cores.freeze(self.now_ns)
        elif self.life is Life.RESETTING:
            self.counts["resets"] += 1
            self._booted_ns = self.now_ns + self.spec.reset_us * 1000
            self.jobs.fail_running(failure, why, self.now_ns)
        elif self.life is Life.BOOTING:
            self._booted_ns = self.now_ns + self.spec.boot_us * 1000
        elif self.life not in POWERED:
            self.jobs.forget(failure, why, self.now_ns)
            for context in tuple(self.jobs.contexts.values()) if self.life is Life.GONE else ():
                self.jobs.close(context, self.now_ns)
                self._report(ContextLost(at_us=self._now_us, context=context.id))

    def inject(self, fault: Fault) -> None:
        """Begin a fault at this moment, which must be a whole microsecond.

        Raises:
            DeviceError: the device's state cannot take it.
        """
        fault, state = replace(fault, at_us=self.now_ns // 1000), self.life
        self._plan = self._plan.with_fault(fault)
        begun = self._begin(fault)
        self._weigh_faults()
        if not begun:
            advice = "wait until it is ready" if state in POWERED else "reset it first"
            raise DeviceError(f"{fault.kind} has no effect: the device is {state}", advice=advice)

    def clear(self) -> None:
        """End every lasting fault that has begun; a device that one of them keeps down or hung comes back."""
        active = self._plan.active(self._now_us)
        self._plan = self._plan.without(active)
        for fault in active:
            self._end(fault)
        self._weigh_faults()

    @property
    def _now_us(self) -> float:
        return self.now_ns / 1000

    def _next_event(self, horizon_ns: float = math.inf) -> tuple[int, Callable[[], None]] | None:
        """The first one; None when nothing is due before the horizon."""
        stop = self.jobs.cores.next_stop()
        stop_ns = None if stop is None else stop.stop_ns
        for moment_ns in (self._fault_ns, self._booted_ns, stop_ns):
            if moment_ns is not None and moment_ns < horizon_ns:
                horizon_ns = moment_ns
        due = (
            (self._fault_ns, self._on_fault),
            (self._booted_ns, self._on_booted),
            (self.climate.next_ns(horizon_ns), self._on_climate),
            (stop_ns, self._on_stop),
        )
        first = None
        for due_ns, handler in due:
            if due_ns is not None and (first is None or due_ns < first[0]):
                first = due_ns, handler
        return first

    def _pace(self) -> Pace:
        ratio = self.climate.mhz / self.spec.top_mhz
        return Pace(ratio, self._conditions.memory_factor, self.climate.core_w)

    def _on_fault(self) -> None:
        moment_us = self._now_us
        for fault in self._plan.over_at(moment_us):
            self._end(fault)
        for fault in self._plan.begun_at(moment_us):
            self._begin(fault)
        self._weigh_faults()

    def _weigh_faults(self) -> None:
        self._plan = self._plan.from_now(self._now_us)
        self._conditions = conditions(self._plan.active(self._now_us))
        self._fault_ns = self._next_fault_ns(self._now_us)
        self.jobs.cores.set_pace(self._pace(), self.now_ns)
        self.settle()

    def _next_fault_ns(self, after_us: float) -> int | None:
        moment_us = self._plan.next_us(after_us)
        return None if moment_us is None else round(moment_us) * 1000

    def _begin(self, fault: Fault) -> bool:
        """False: it had no effect."""
        signal = _SIGNALS.get(fault.kind)
        if signal is Signal.RESET:  # of itself; the table's other pairs are for a reset from outside
            lands = self.life in POWERED
        else:
            lands = (self.life, signal) in NEXT if signal else self.life in POWERED or fault.lasts
        prolongs = not lands and bool(self._kept_down_by) and fault.kind in _KEEP_DOWN
        if not lands and not prolongs:
            why = f"the device is {self.life}"
            self._report(FaultHadNoEffect(at_us=self._now_us, kind=fault.kind, why=why))
            return False
        self._report(FaultBegan(at_us=self._now_us, kind=fault.kind))
        if fault.lasts:
            self._lasting.add(id(fault))
        if fault.kind is Kind.ECC_CORRECTED:
            self.counts["ce"] += fault.count or 0
            self._report(MemoryErrors(at_us=self._now_us, corrected=fault.count or 0))
        elif fault.kind is Kind.ECC_UNCORRECTED:
            self.counts["ue"] += fault.count or 0
            self._report(MemoryErrors(at_us=self._now_us, uncorrected=fault.count or 0))
            self.signal(Signal.RESET, "uncorrectable memory error", Failure.MEMORY_ERROR)
            self.jobs.forget(Failure.MEMORY_ERROR, self.why, self.now_ns)  # nobody knows what else is wrong in there
        elif fault.kind is Kind.THERMAL_TRIP:
            self.climate.heat_up(self.spec.thermal.critical_c, self.now_ns)
        elif prolongs:
            self._kept_down_by.append(fault)
        elif signal is not None:
            before = [each for each in self._kept_down_by if each.kind in _KEEP_DOWN]
            self.signal(signal, f"fault: {fault.kind}")
            self._kept_down_by = [*before, fault]
        else:
            self._intruders.begin(fault)
        return True

    def _end(self, fault: Fault) -> None:
        if id(fault) not in self._lasting:
            return  # it had no effect
        self._lasting.remove(id(fault))
        self._report(FaultEnded(at_us=self._now_us, kind=fault.kind))
        self._intruders.end(fault, self.now_ns)
        others = [each for each in self._kept_down_by if each is not fault]
        released = bool(self._kept_down_by) and not others
        self._kept_down_by = others
        if released and self.life is Life.HUNG:
            self.signal(Signal.RESET, "reset by the driver's watchdog: no progress")
        elif released and (self.life, Signal.RESTORED) in NEXT:
            self.signal(Signal.RESTORED, f"fault over: {fault.kind}")

    def _on_booted(self) -> None:
        refusal = self._boot()
        if refusal:
            self.signal(Signal.REFUSED, refusal)
            return
        if self.rom is not None:  # not before: a firmware that the driver refuses must not lock out the one before it
            self.rom = self.rom.booted()
        self.signal(Signal.BOOTED, "booted")

    def _boot(self) -> str:
        """Why not, or nothing."""
        if self.climate.heat is Heat.CRITICAL:
            return "still too hot to be switched on"
        if self.rom is not None:
            try:
                self.measurements = self.rom.boot()
            except ArtifactError as error:
                return f"{error.message}: {error.advice}"
            self._firmware = read_header(self.rom.image).version
        mismatch = driver_mismatch(self.spec.released, self.versions())
        self.counts["refused boots"] += mismatch is not None
        return f"{mismatch.message}: {mismatch.advice}" if mismatch else ""

    def _on_climate(self) -> None:
        before_mhz = self.climate.mhz
        found = self.climate.act(self.now_ns)
        if self.climate.mhz != before_mhz:
            self.jobs.cores.set_pace(self._pace(), self.now_ns)
            temperature_c = self.climate.look(self.now_ns).temperatures.junction_c
            self._report(
                ClockChanged(
                    at_us=self._now_us,
                    before_mhz=before_mhz,
                    after_mhz=self.climate.mhz,
                    temperature_c=temperature_c,
                )
            )
        if found is Trip.TOO_HOT and (self.life, Signal.TRIP) in NEXT:
            self.counts["trips"] += 1
            self.signal(Signal.TRIP, f"critical temperature, {self.spec.thermal.critical_c} °C")

    def _on_stop(self) -> None:
        stop = self.jobs.cores.next_stop()
        job = None if stop is None else self.jobs.stop(stop, self.now_ns)
        if job is not None:
            self._complete(job)

    def _complete(self, job: Job) -> None:
        corruption = self._conditions.corruption(job.loaded.program, self._seed, job.id)
        self.counts["completions"] += 1
        self.counts["canary runs"] += job.canary
        self.counts["canary failures"] += job.canary and corruption is not None
        self._report(
            JobCompleted(
                at_us=self._now_us,
                job=job.id,
                context=job.context.id,
                submitted_us=job.submitted_ns / 1000,
                started_us=job.started_ns / 1000,
                busy_us=job.busy_ns / 1000,
                energy_mj=job.energy_mj,
                preemptions=job.preemptions,
                corruption=corruption,
            )
        )

    def _report(self, event: DeviceEvent) -> None:
        neighbours = isinstance(event, JobCompleted | JobFailed | ContextLost) and self._intruders.sent(event.context)
        if not neighbours:
            self._events.append(event)
