"""The virtual NPU's machine: a discrete-event simulation of one device. Pure: it is told the time.

Every call names the moment at which it happens, in microseconds of one clock that never goes back; what happened
since the last call is worked off first, event by event, and `advance` returns the facts. Between events nothing is
computed, so a quiet day costs as much as a quiet second, and looking more often changes nothing.

Behind it, one file each: `simulation.py` the events in order, `life.py` which states there are, `jobs.py` who uses
the device, `climate.py` heat, power and clock, `fault_plan.py` what goes wrong when.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from npuops.errors import (
    DeviceLostError,
    DeviceMemoryError,
    IncompatibleArtifactError,
    OptionError,
    UnsupportedModelError,
)
from npuops.vnpu.device_events import DeviceEvent
from npuops.vnpu.device_telemetry import Refusal, Telemetry
from npuops.vnpu.fault_plan import FaultPlan
from npuops.vnpu.faults import Fault
from npuops.vnpu.firmware import BootRom
from npuops.vnpu.life import Life, Signal
from npuops.vnpu.program import Program
from npuops.vnpu.simulation import POWERED, Simulation
from npuops.vnpu.spec import MachineSpec
from npuops.vnpu.tenancy import Priority
from npuops.vnpu.versions import compiler_mismatch, driver_mismatch

NO_FAULTS: Final = FaultPlan()


class Machine:
    """One device, switched on at `start_us`; it takes jobs once it has booted.

    Args:
        spec: the chip.
        seed: decides which jobs a sporadic fault hits.
        start_us: the clock's reading now; a plan's times count from here.
        plan: what will go wrong.
        rom: its firmware image and whom it trusts; None: a device that isn't measured.
    """

    def __init__(
        self,
        spec: MachineSpec,
        seed: int = 0,
        *,
        start_us: int = 0,
        plan: FaultPlan = NO_FAULTS,
        rom: BootRom | None = None,
    ) -> None:
        self._spec = spec
        self._simulation = Simulation(spec, seed, start_us, plan, rom)
        self._refusals = dict.fromkeys(Refusal, 0)

    def advance(self, now_us: int) -> tuple[DeviceEvent, ...]:
        """Let time pass; what has been reported since the last call, in order.

        Raises:
            OptionError: the moment lies before that of an earlier call. So does every call below.
        """
        self._simulation.run_until(now_us)
        return self._simulation.taken_events()

    def next_event_us(self) -> int | None:
        """When to call `advance` next, if nothing is submitted before; None: nothing will happen by itself."""
        due_ns = self._simulation.next_ns()
        return None if due_ns is None else -(-due_ns // 1000)

    def open_context(self, pid: int, priority: Priority, now_us: int) -> int:
        """A tenant; returns the context's id.

        Raises:
            DeviceLostError: the device is off or gone.
        """
        self._simulation.run_until(now_us)
        self._must_be_powered()
        return self._simulation.jobs.open(pid, priority).id

    def close_context(self, context: int, now_us: int) -> None:
        """Everything of a tenant goes at once: jobs (without an event), programs, memory.

        Raises:
            DeviceLostError: no such context (any more).
        """
        simulation = self._simulation
        simulation.run_until(now_us)
        tenant = simulation.jobs.context(context)
        simulation.jobs.close(tenant, simulation.now_ns)
        simulation.settle()

    def load(self, context: int, program: Program, compiler: str, now_us: int) -> int:
        """Bring a program to the device; returns its handle, which is good until the device goes off.

        Args:
            context: whose it is.
            program: what to load.
            compiler: version of the compiler that wrote it.
            now_us: the moment.

        Raises:
            DeviceLostError: no such context, or the device is off, gone or doesn't answer.
            IncompatibleArtifactError: the firmware doesn't take what this compiler wrote.
            UnsupportedModelError: the program has operators that the device doesn't have.
            DeviceMemoryError: it doesn't fit; the message names asked, free and the largest free block.
        """
        simulation = self._simulation
        simulation.run_until(now_us)
        tenant = simulation.jobs.context(context)
        self._must_be_powered()
        if simulation.life is Life.HUNG:
            raise DeviceLostError(f"the device does not answer: {simulation.why}", advice="reset it")
        self._must_take(program, compiler)
        try:
            return simulation.jobs.load(tenant, program)
        except DeviceMemoryError:
            self._refusals[Refusal.MEMORY] += 1
            raise

    def unload(self, context: int, handle: int, now_us: int) -> None:
        """Give the memory of a program back.

        Raises:
            DeviceLostError: no such context or program (any more).
            OptionError: jobs of it are not through.
        """
        self._simulation.run_until(now_us)
        jobs = self._simulation.jobs
        jobs.unload(jobs.context(context), handle)

    def submit(self, context: int, handle: int, now_us: int, *, canary: bool = False) -> int:
        """Queue a job; returns its id. A device that hangs takes it too, and never answers.

        Args:
            context: whose it is.
            handle: as `load` gave it.
            now_us: the moment.
            canary: the right answer is known: telemetry counts whether it came out.

        Raises:
            DeviceLostError: no such context or program, or the device is off or gone.
            DeviceMemoryError: no room for inputs and outputs.
        """
        simulation = self._simulation
        simulation.run_until(now_us)
        self._must_be_powered()
        jobs = simulation.jobs
        try:
            job = jobs.submit(jobs.context(context), handle, simulation.now_ns, canary=canary)
        except DeviceMemoryError:
            self._refusals[Refusal.MEMORY] += 1
            raise
        simulation.settle()
        return job

    def reset(self, now_us: int) -> None:
        """Reset it; switch it on if it is off; load its driver again if it is gone.

        Jobs on the cores fail. A device that kept its power keeps its programs and its queues.
        """
        simulation = self._simulation
        simulation.run_until(now_us)
        is_cure = simulation.life is Life.HUNG
        simulation.signal(Signal.RESET, "reset by command")
        if simulation.life is Life.RESETTING and not is_cure:
            simulation.counts["commanded resets"] += 1
        simulation.settle()

    def flash(self, image: bytes, now_us: int) -> None:
        """Another firmware image, which the next reset or boot takes, or refuses.

        Raises:
            OptionError: a device without a firmware image.
        """
        simulation = self._simulation
        simulation.run_until(now_us)
        if simulation.rom is None:
            raise OptionError("this device has no firmware image", advice="start it with one")
        simulation.rom = replace(simulation.rom, image=image)

    def inject(self, fault: Fault, now_us: int) -> None:
        """Let a fault begin now, whatever time it names.

        Raises:
            DeviceError: the device's state cannot take it, for example a hang while it is off; nothing happened.
        """
        self._simulation.run_until(now_us)
        self._simulation.inject(fault)

    def clear_faults(self, now_us: int) -> None:
        """End every lasting fault that has begun, as its time would; lost jobs and programs stay lost."""
        self._simulation.run_until(now_us)
        self._simulation.clear()

    def telemetry(self, now_us: int) -> Telemetry:
        """Everything that the device shows at a moment."""
        simulation = self._simulation
        simulation.run_until(now_us)
        now_ns, counts, jobs, climate = simulation.now_ns, simulation.counts, simulation.jobs, simulation.climate
        weather = climate.look(now_ns)
        return Telemetry(
            name=self._spec.name,
            life=simulation.life,
            why=simulation.why,
            heat=climate.heat,
            versions=simulation.versions(),
            measurements=simulation.measurements,
            busy_us=jobs.cores.busy_ns(now_ns) / 1000,
            core_busy_us=jobs.cores.core_busy_ns(now_ns) / 1000,
            memory_used_bytes=jobs.memory.used_bytes,
            memory_total_bytes=jobs.memory.total_bytes,
            largest_free_bytes=jobs.memory.largest_free_bytes,
            current_mhz=climate.mhz if jobs.cores.working else 0.0,
            cap_mhz=climate.mhz,
            min_mhz=self._spec.clock_points_mhz[0],
            max_mhz=self._spec.top_mhz,
            temperature_c=weather.temperatures.junction_c,
            case_c=weather.temperatures.case_c,
            throttle_c=self._spec.thermal.throttle_c,
            critical_c=self._spec.thermal.critical_c,
            power_w=climate.power_w,
            energy_uj=weather.energy_mj * 1000,
            idle_energy_uj=weather.idle_energy_mj * 1000,
            resets=counts["resets"],
            commanded_resets=counts["commanded resets"],
            throttles=climate.throttles,
            trips=counts["trips"],
            ce_count=counts["ce"],
            ue_count=counts["ue"],
            completions=counts["completions"],
            refusals={**self._refusals, Refusal.VERSION: self._refusals[Refusal.VERSION] + counts["refused boots"]},
            canary_runs=counts["canary runs"],
            canary_failures=counts["canary failures"],
            dram_bytes=jobs.cores.dram_bytes,
            contexts=jobs.tenants(now_ns),
            departed_busy_us=jobs.departed.busy_ns / 1000,
            departed_energy_mj=jobs.departed.energy_mj,
        )

    def _must_be_powered(self) -> None:
        simulation = self._simulation
        if simulation.life not in POWERED:
            raise DeviceLostError(
                f"the device is {simulation.life}: {simulation.why}",
                advice="reset it, and load the programs again; or use another device or the CPU meanwhile",
            )

    def _must_take(self, program: Program, compiler: str) -> None:
        released, versions = self._spec.released, self._simulation.versions(compiler)
        mismatch = driver_mismatch(released, versions) or compiler_mismatch(released, versions)
        if mismatch is not None:
            self._refusals[Refusal.VERSION] += 1
            raise IncompatibleArtifactError(mismatch.message, advice=mismatch.advice)
        unsupported = sorted(program.ops & self._simulation.unsupported)
        if unsupported:
            self._refusals[Refusal.OPERATOR] += 1
            raise UnsupportedModelError(
                f"the device has no {', '.join(unsupported)}",
                advice="let the CPU take these operators, or replace them in the model",
            )
