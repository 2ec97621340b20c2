"""What the kernel's records of one CPU tell: who left it, who came, who woke, when it ticked. Pure.

Some machines hide what a few tasks of theirs do (an agent of the hypervisor: their records are missing, and not counted
as lost). Then somebody leaves a CPU to which nobody saw it come. When it came is told by the CPU time that the kernel
booked for it, which is recorded, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from npuops.schedlab.switch_trace import NOBODY, OTHERS, Event

SWITCH: Final = ("sched/sched_switch", ("prev_pid", "prev_state", "next_pid"))
"""A tracepoint, and the fields of its records that `Onlooker.look` takes, in that order."""
WAKE: Final = ("sched/sched_wakeup", ("pid", "target_cpu", "common_pid", "common_flags"))
TICK: Final = ("irq_vectors/local_timer_entry", ())
BOOKED: Final = ("sched/sched_stat_runtime", ("pid", "runtime"))
_INTERRUPT: Final = 0x58
"""In common_flags: within an interrupt, a soft one, or an NMI."""
_ASLEEP: Final = 0xFF
"""Bits of prev_state that mean asleep or gone; a preempted task has none of them."""


class Onlooker:
    """Turns the records of one CPU into events.

    Attributes:
        inferred: events that no record tells.
    """

    def __init__(self, numbers: Mapping[int, int], place_of: Mapping[int, int], cpu: int) -> None:
        self.inferred = 0
        self._numbers, self._place_of, self._cpu = numbers, place_of, cpu
        self._runs: int | None = None
        self._came_ns = self._booked_ns = 0

    def look(self, place: str, moment: int, values: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Rows of a `SwitchTrace`, in time."""
        if place == BOOKED[0]:
            self._booked_ns += values[1] if values[0] in self._numbers else 0
            return []
        if place == TICK[0]:
            return [(moment, Event.TICK, self._place_of[self._cpu], NOBODY, NOBODY, 0, 0)]
        if place == SWITCH[0]:
            return self._switch(moment, *values)
        pid, target, waker, flags = values
        if pid not in self._numbers or target not in self._place_of:
            return []
        by = NOBODY if flags & _INTERRUPT else self._numbers.get(waker, OTHERS)
        return [(moment, Event.WAKE, self._place_of[target], self._numbers[pid], by, 0, 0)]

    def _switch(self, moment: int, was: int, state: int, then: int) -> list[tuple[int, ...]]:
        one, other = (NOBODY if pid == 0 else self._numbers.get(pid, OTHERS) for pid in (was, then))
        place = self._place_of[self._cpu]
        found: list[tuple[int, ...]] = []
        if self._runs is None and one >= 0:
            self._runs = NOBODY  # players rest when a play begins: this one came, and that is hidden
        if self._runs is not None and self._runs != one:
            came = max(self._came_ns, moment - self._booked_ns) if one >= 0 else moment
            found.append((came, Event.SWITCH, place, self._runs, one, int(self._runs == OTHERS), 0))
            self.inferred += 1
        if one != other:
            booked = self._booked_ns if one >= 0 else 0
            found.append((moment, Event.SWITCH, place, one, other, int(not state & _ASLEEP), booked))
        self._runs, self._came_ns, self._booked_ns = other, moment, 0
        return found
