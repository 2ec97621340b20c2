"""What some faults put on a device: somebody else's memory, and a neighbour that never rests. Pure."""

from __future__ import annotations

from typing import Final

from npuops.vnpu.allocator import PAGE_BYTES, Block
from npuops.vnpu.faults import Fault, Kind
from npuops.vnpu.jobs import Jobs
from npuops.vnpu.program import Program, Step
from npuops.vnpu.spec import MachineSpec

OUTSIDE: Final = 0
"""Owner of the memory that no context has, and process of a neighbour: nobody's."""

_SLICES: Final = 100
"""Length of a neighbour's job: long, so that a day of noise has few events."""
_STEPS_PER_SLICE: Final = 4


class Intruders:
    """Memory pressure and noisy neighbours, each for as long as its fault lasts."""

    def __init__(self, spec: MachineSpec, jobs: Jobs) -> None:
        self._jobs = jobs
        self._cores = spec.cores
        self._noise = _noise(spec.time_slice_us)
        self._blocks: dict[int, list[Block]] = {}
        self._neighbours: dict[int, tuple[Fault, int]] = {}

    def begin(self, fault: Fault) -> None:
        """Faults of other kinds bring nobody."""
        if fault.kind is Kind.OOM_PRESSURE:
            self._blocks[id(fault)] = self._take(fault.share or 0.0)
        elif fault.kind is Kind.NOISY_NEIGHBOUR and fault.priority is not None:
            self._neighbours[id(fault)] = (fault, self._jobs.open(OUTSIDE, fault.priority).id)

    def end(self, fault: Fault, now_ns: int) -> None:
        """What the fault brought goes."""
        for block in self._blocks.pop(id(fault), ()):
            self._jobs.memory.free(block)
        _, number = self._neighbours.pop(id(fault), (None, None))
        if number is not None and number in self._jobs.contexts:
            self._jobs.close(self._jobs.contexts[number], now_ns)

    def feed(self, now_ns: int) -> None:
        """Every neighbour gets as many jobs as there are cores, whatever became of its context."""
        for key, (fault, number) in self._neighbours.items():
            context = self._jobs.contexts.get(number)
            if context is None and fault.priority is not None:
                context = self._jobs.open(OUTSIDE, fault.priority)
                self._neighbours[key] = (fault, context.id)
            if context is None:
                continue
            handle = next(iter(context.loaded), None) or self._jobs.load(context, self._noise)
            running = sum(running.job.context is context for running in self._jobs.cores.running)
            for _ in range(self._cores - running - len(context.queue)):
                self._jobs.submit(context, handle, now_ns)

    def sent(self, context: int) -> bool:
        """Whether a context is a neighbour's: nobody waits for its jobs."""
        return any(number == context for _, number in self._neighbours.values())

    def _take(self, share: float) -> list[Block]:
        """A share of the free memory, from the largest holes."""
        memory = self._jobs.memory
        rest = int(memory.free_bytes * share) // PAGE_BYTES * PAGE_BYTES
        taken = []
        while rest:
            block = memory.allocate(min(rest, memory.largest_free_bytes), OUTSIDE)
            rest -= block.size_bytes
            taken.append(block)
        return taken


def _noise(slice_us: int) -> Program:
    """Jobs of many time slices, so that equals have to take turns with them; without memory, so they always fit."""
    steps = tuple(
        Step(name=f"noise_{number}", op="Noise", compute_us=slice_us / _STEPS_PER_SLICE, memory_us=0.0)
        for number in range(_SLICES * _STEPS_PER_SLICE)
    )
    return Program(
        steps=steps,
        weights_bytes=0,
        activation_bytes=0,
        input_bytes=0,
        output_bytes=0,
        ops=frozenset({"Noise"}),
    )
