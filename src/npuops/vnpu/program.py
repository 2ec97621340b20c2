"""A compiled network as the machine sees it: steps with a price at the top clock, and the memory they need. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from npuops.errors import OptionError

LONGEST_US: Final = 1e9
"""Of a step's times: a quarter of an hour. Beyond it a clock point and a slow memory could end at infinity."""
_MOST: Final = 2**44
"""Bytes or MACs, 10^13: no layer has more, and counters that add them up stay within the 64 bits of a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One layer, or what a compiler fused into one: the machine stops between steps, never inside.

    Attributes:
        name: of the layer, unique in its program.
        op: its class, for example `Conv`.
        compute_us: of the MAC array and the vector unit at the top clock; grows as the clock falls.
        memory_us: of the transfers, which the clock doesn't touch; they run beside the computing.
        overhead_us: before either can begin; the clock doesn't touch it.
        dram_bytes: moved between device memory and chip.
        macs: multiplications with addition.
    """

    name: str
    op: str
    compute_us: float
    memory_us: float
    overhead_us: float = 0.0
    dram_bytes: int = 0
    macs: int = 0

    def __post_init__(self) -> None:
        """Refuse what no layer costs.

        Raises:
            OptionError: a figure is negative, not a number, or beyond all layers.
        """
        times = (self.compute_us, self.memory_us, self.overhead_us)
        if not all(0 <= each <= LONGEST_US for each in times):
            limit = f"{LONGEST_US:.0f} µs"
            raise OptionError(f"step {self.name!r}: no figure may be negative or beyond {limit}, found {times}")
        if not all(0 <= each <= _MOST for each in (self.dram_bytes, self.macs)):
            found = f"{self.dram_bytes} bytes and {self.macs} MACs"
            raise OptionError(f"step {self.name!r}: no figure may be negative or beyond {_MOST}, found {found}")

    def duration_us(self, clock_ratio: float, memory_factor: float) -> float:
        """At `clock_ratio` of the top clock, with transfers `memory_factor` times as slow."""
        return max(self.compute_us / clock_ratio, self.memory_us * memory_factor) + self.overhead_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a load brings to the device.

    Attributes:
        steps: in order; at least one.
        weights_bytes: of device memory, from load to unload.
        activation_bytes: peak between the steps; stays on the chip where it fits there.
        input_bytes, output_bytes: of device memory, from submission to completion.
        ops: every operator class, those that were fused away too.
    """

    steps: tuple[Step, ...]
    weights_bytes: int
    activation_bytes: int
    input_bytes: int
    output_bytes: int
    ops: frozenset[str]

    def __post_init__(self) -> None:
        """Refuse what is no program.

        Raises:
            OptionError: no step, an impossible size, or a step's class that `ops` lacks.
        """
        if not self.steps:
            raise OptionError("a program needs at least one step")
        sizes = (self.weights_bytes, self.activation_bytes, self.input_bytes, self.output_bytes)
        if not all(0 <= size <= _MOST for size in sizes):
            raise OptionError(f"a program's sizes must be from 0 to {_MOST} bytes, found {sizes}")
        missing = {step.op for step in self.steps} - self.ops
        if missing:
            raise OptionError(f"ops lacks the classes of its own steps: {', '.join(sorted(missing))}")

    def step_ends_ns(self, clock_ratio: float, memory_factor: float) -> tuple[int, ...]:
        """When each step ends, in whole nanoseconds since the start, if nothing interrupts.

        Whole numbers, so that a pause and a resumption at a step's edge lose nothing.
        """
        durations_us = (step.duration_us(clock_ratio, memory_factor) for step in self.steps)
        return tuple(accumulate(round(duration_us * 1000) for duration_us in durations_us))
