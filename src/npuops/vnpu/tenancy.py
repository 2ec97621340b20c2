"""The tenants of a device: contexts with a priority, a queue and an account. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate

from npuops.vnpu.allocator import Block
from npuops.vnpu.program import Program


class Priority(IntEnum):
    """ivpu's, from weakest to strongest."""

    IDLE = 1
    NORMAL = 2
    FOCUS = 3
    REALTIME = 4

    @property
    def word(self) -> str:
        """As the tree shows it."""
        return self.name.lower()


@dataclass(slots=True)
class Account:
    """What was spent for somebody; every figure only grows.

    Attributes:
        busy_ns: of cores, so two cores for a second are two seconds.
        energy_mj: above the idle power, which nobody in particular pays.
        submissions, completions, errors: jobs.
        preemptions: how often a job of it had to leave a core for another.
        waited_ns: with a job in the queue and none on a core.
    """

    busy_ns: int = 0
    energy_mj: float = 0.0
    submissions: int = 0
    completions: int = 0
    errors: int = 0
    preemptions: int = 0
    waited_ns: int = 0

    def add(self, other: Account) -> None:
        """The other's figures too."""
        self.busy_ns += other.busy_ns
        self.energy_mj += other.energy_mj
        self.submissions += other.submissions
        self.completions += other.completions
        self.errors += other.errors
        self.preemptions += other.preemptions
        self.waited_ns += other.waited_ns


@dataclass(frozen=True, slots=True)
class Pace:
    """What decides how long a step takes, and what it costs.

    Attributes:
        clock_ratio: of the top clock.
        memory_factor: how many times slower than usual transfers are.
        core_w: what a busy core adds to the power.
    """

    clock_ratio: float
    memory_factor: float
    core_w: float


class Loaded:
    """A program in device memory, with its timetable at the pace that was asked for last.

    Attributes:
        moved_bytes: between device memory and chip, before each step; the last one is the sum.
    """

    __slots__ = ("_ends_ns", "_pace", "blocks", "moved_bytes", "program")

    def __init__(self, program: Program, blocks: tuple[Block, ...]) -> None:
        self.program = program
        self.blocks = blocks
        self.moved_bytes = tuple(accumulate((step.dram_bytes for step in program.steps), initial=0))
        self._pace: Pace | None = None
        self._ends_ns: tuple[int, ...] = ()

    def step_ends_ns(self, pace: Pace) -> tuple[int, ...]:
        """When each step ends, since the start, at this pace."""
        if pace != self._pace:
            self._pace = pace
            self._ends_ns = self.program.step_ends_ns(pace.clock_ratio, pace.memory_factor)
        return self._ends_ns


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One inference, from submission to its end.

    Attributes:
        started_ns: when its first step began.
        step: the next to run; a job leaves a core only between two steps.
        canary: its right answer is known to whoever submitted it.
        buffers: device memory of its inputs and outputs.
    """

    id: int
    context: Context
    loaded: Loaded
    submitted_ns: int
    canary: bool
    buffers: Block | None
    started_ns: int = 0
    step: int = 0
    busy_ns: int = 0
    energy_mj: float = 0.0
    preemptions: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Context:
    """One client's view of the device.

    Attributes:
        queue: jobs that wait; one that had to leave its core waits at the front.
        waiting_since_ns: since when it has waited without being served; meaningless while the queue is empty.
        served_ns: when a job of it was last given a core or had to leave one: round robin takes the longest ago.
        loaded: programs by handle.
    """

    id: int
    pid: int
    priority: Priority
    queue: deque[Job] = field(default_factory=deque)
    waiting_since_ns: int = 0
    served_ns: int = -1
    loaded: dict[int, Loaded] = field(default_factory=dict)
    account: Account = field(default_factory=Account)
