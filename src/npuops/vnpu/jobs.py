"""Tenants, their programs and jobs, on the memory and the cores of one device. Pure.

Knows nothing of heat, faults or the device's life: `simulation.py` tells it the pace and the time, and when everything
on the cores is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from npuops.errors import DeviceLostError, DeviceMemoryError, OptionError
from npuops.vnpu.allocator import Allocator, Block
from npuops.vnpu.cores import Cores, Running
from npuops.vnpu.device_events import DeviceEvent, Failure, JobFailed
from npuops.vnpu.device_telemetry import ContextTelemetry
from npuops.vnpu.program import Program
from npuops.vnpu.run_queue import claim_ns, next_context
from npuops.vnpu.spec import MachineSpec
from npuops.vnpu.tenancy import Account, Context, Job, Loaded, Pace, Priority


class Jobs:
    """What the clients of a device have brought to it.

    Attributes:
        contexts: by id, in the order in which they were opened.
        departed: accounts of contexts that are closed, added up.
        memory: of the device.
        cores: what runs now.
    """

    def __init__(self, spec: MachineSpec, pace: Pace, report: Callable[[DeviceEvent], None]) -> None:
        self.contexts: dict[int, Context] = {}
        self.departed = Account()
        self.memory = Allocator(spec.dram_bytes)
        self._slice_ns = spec.time_slice_us * 1000
        self.cores = Cores(spec.cores, self._slice_ns, pace)
        self._sram_bytes = spec.sram_bytes
        self._report = report
        self._next_id = 1
        self._held_up: tuple[Context, ...] = ()
        self._held_up_ns = 0

    def open(self, pid: int, priority: Priority) -> Context:
        """A context for a client."""
        context = Context(id=self._number(), pid=pid, priority=priority)
        self.contexts[context.id] = context
        return context

    def context(self, number: int) -> Context:
        """By id.

        Raises:
            DeviceLostError: closed, lost with the driver, or never opened.
        """
        if number not in self.contexts:
            raise DeviceLostError(f"there is no context {number} (any more)", advice="open a new one")
        return self.contexts[number]

    def close(self, context: Context, now_ns: int) -> None:
        """Everything of a client goes: jobs on the cores and in the queue, programs, memory."""
        for running in [running for running in self.cores.running if running.job.context is context]:
            self.cores.leave(running, now_ns)
        self.bill_waiting(now_ns)
        self.memory.free_all(context.id)
        del self.contexts[context.id]
        self.departed.add(context.account)

    def load(self, context: Context, program: Program) -> int:
        """Allocate the memory of a program; returns its handle.

        Raises:
            DeviceMemoryError: it doesn't fit; nothing is allocated.
        """
        spilled = program.activation_bytes if program.activation_bytes > self._sram_bytes else 0
        blocks: list[Block] = []
        try:
            for size in (program.weights_bytes, spilled):
                if size:
                    blocks.append(self.memory.allocate(size, context.id))  # noqa: PERF401 - what came before is freed
        except DeviceMemoryError:
            for block in blocks:
                self.memory.free(block)
            raise
        handle = self._number()
        context.loaded[handle] = Loaded(program, tuple(blocks))
        return handle

    def unload(self, context: Context, handle: int) -> None:
        """Give the memory of a program back.

        Raises:
            DeviceLostError: no such program.
            OptionError: jobs of it are not through.
        """
        loaded = self._loaded(context, handle)
        on_cores = [running.job for running in self.cores.running]
        if any(job.loaded is loaded for job in (*context.queue, *on_cores)):
            raise OptionError(f"program {handle} has jobs that are not through", advice="wait for them, then unload")
        for block in loaded.blocks:
            self.memory.free(block)
        del context.loaded[handle]

    def submit(self, context: Context, handle: int, now_ns: int, *, canary: bool = False) -> int:
        """Queue a job; returns its id. It starts with the next `dispatch`.

        Raises:
            DeviceLostError: no such program.
            DeviceMemoryError: no room for inputs and outputs; it counts as an error of the context.
        """
        loaded = self._loaded(context, handle)
        context.account.submissions += 1
        size = loaded.program.input_bytes + loaded.program.output_bytes
        try:
            buffers = self.memory.allocate(size, context.id) if size else None
        except DeviceMemoryError:
            context.account.errors += 1
            raise
        job = Job(
            id=self._number(),
            context=context,
            loaded=loaded,
            submitted_ns=now_ns,
            canary=canary,
            buffers=buffers,
        )
        if not context.queue:
            context.waiting_since_ns = now_ns
        context.queue.append(job)
        return job.id

    def dispatch(self, now_ns: int) -> None:
        """Fill free cores, and plan who leaves when."""
        waiting = [context for context in self.contexts.values() if context.queue]
        while waiting and self.cores.free:
            context = next_context(waiting, self._claim_ns(), now_ns) if len(waiting) > 1 else waiting[0]
            claimed = context.priority is Priority.NORMAL and any(each.priority is Priority.FOCUS for each in waiting)
            self.cores.start(context.queue.popleft(), now_ns, claimed=claimed)
            context.served_ns = context.waiting_since_ns = now_ns
            if not context.queue:
                waiting.remove(context)
        self.cores.plan(waiting, self._claim_ns() if waiting else math.inf, now_ns)

    def bill_waiting(self, now_ns: int) -> None:
        """Until now those waited that had a job in the queue and none on a core; who does from now on?

        To be called after every change, whatever the device's state: a queue waits for a reset as for a neighbour.
        """
        for context in self._held_up:
            context.account.waited_ns += now_ns - self._held_up_ns
        waiting = [context for context in self.contexts.values() if context.queue]
        served = [running.job.context for running in self.cores.running] if waiting else []
        self._held_up, self._held_up_ns = tuple(each for each in waiting if each not in served), now_ns

    def stop(self, running: Running, now_ns: int) -> Job | None:
        """A job leaves its core: the job if it is through, None if it has to wait for the rest."""
        self.cores.leave(running, now_ns)
        job, context = running.job, running.job.context
        if job.step == len(job.loaded.program.steps):
            context.waiting_since_ns = now_ns
            context.account.completions += 1
            self._release(job)
            return job
        context.queue.appendleft(job)
        if now_ns == running.since_ns:  # somebody above it came at the same moment: it has not had its turn
            context.served_ns, context.waiting_since_ns = running.before
            return None
        job.preemptions += 1
        context.account.preemptions += 1
        context.served_ns = context.waiting_since_ns = now_ns
        return None

    def fail_running(self, failure: Failure, why: str, now_ns: int) -> None:
        """What is on the cores is lost."""
        for running in tuple(self.cores.running):
            self.cores.leave(running, now_ns)
            self._fail(running.job, failure, why, now_ns)
        self.cores.thaw()

    def forget(self, failure: Failure, why: str, now_ns: int) -> None:
        """Everything in the device's memory is lost: programs, and jobs in the queues too."""
        self.fail_running(failure, why, now_ns)
        for context in self.contexts.values():
            while context.queue:
                self._fail(context.queue.popleft(), failure, why, now_ns)
            context.loaded.clear()
            self.memory.free_all(context.id)

    def tenants(self, now_ns: int) -> tuple[ContextTelemetry, ...]:
        """Every context as it stands now, running jobs included."""
        return tuple(self._tenant(context, now_ns) for context in self.contexts.values())

    def _tenant(self, context: Context, now_ns: int) -> ContextTelemetry:
        mine = [running for running in self.cores.running if running.job.context is context]
        unbilled = [self.cores.unbilled(running, now_ns) for running in mine]
        account = context.account
        unbilled_wait_ns = now_ns - self._held_up_ns if context in self._held_up else 0
        return ContextTelemetry(
            id=context.id,
            pid=context.pid,
            priority=context.priority.word,
            busy_us=(account.busy_ns + sum(spent_ns for spent_ns, _ in unbilled)) / 1000,
            wait_us=(account.waited_ns + unbilled_wait_ns) / 1000,
            memory_bytes=self.memory.owned_bytes(context.id),
            queued=len(context.queue),
            running=len(mine),
            submissions=account.submissions,
            completions=account.completions,
            errors=account.errors,
            preemptions=account.preemptions,
            energy_mj=account.energy_mj + sum(energy_mj for _, energy_mj in unbilled),
        )

    def _fail(self, job: Job, failure: Failure, why: str, now_ns: int) -> None:
        job.context.account.errors += 1
        self._release(job)
        self._report(JobFailed(at_us=now_ns / 1000, job=job.id, context=job.context.id, failure=failure, message=why))

    def _release(self, job: Job) -> None:
        if job.buffers is not None:
            self.memory.free(job.buffers)

    def _loaded(self, context: Context, handle: int) -> Loaded:
        if handle not in context.loaded:
            raise DeviceLostError(
                f"context {context.id} has no program {handle} (any more)",
                advice="load it again: a device that was off or gone forgets its programs",
            )
        return context.loaded[handle]

    def _claim_ns(self) -> float:
        return claim_ns(self.contexts.values(), self._slice_ns)

    def _number(self) -> int:
        self._next_id += 1
        return self._next_id - 1
