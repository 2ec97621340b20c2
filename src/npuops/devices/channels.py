"""The DMA bridge channels of a Cloud AI card: one for each workload, whose state tells of a sub-system that crashed.

`dbc<N>_state` below the card's folder in the class, since Linux 6.19 (Documentation/ABI/stable/sysfs-driver-qaic).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Final

from npuops.devices.quantities import Absent, Quantity, Reading, believed
from npuops.devices.tree import Tree

PATTERN: Final = "dbc[0-9]*_state"


class ChannelState(IntEnum):
    """The number in the file."""

    IDLE = 0
    """Free."""
    ASSIGNED = 1
    """A workload runs."""
    BEFORE_SHUTDOWN = 2
    """The workload's sub-system has crashed and will shut down."""
    AFTER_SHUTDOWN = 3
    BEFORE_POWER_UP = 4
    AFTER_POWER_UP = 5
    """The sub-system works again; its workload must be started anew."""


CRASHED: Final = frozenset({ChannelState.BEFORE_SHUTDOWN, ChannelState.AFTER_SHUTDOWN, ChannelState.BEFORE_POWER_UP})
"""From the crash until the sub-system has power again."""


def read_channels(tree: Tree, minor: Path) -> Mapping[Quantity, Reading | Absent]:
    """How many channels have a workload, and how many a sub-system that crashed.

    A channel that cannot be read makes a count absent, unless that would hide a crash which was seen. The source of
    the crashed ones names them.
    """
    states: dict[str, ChannelState] = {}
    unread: Absent | None = None
    for name in tree.names(minor, PATTERN):
        state = _state(tree, minor / name)
        if isinstance(state, Absent):
            unread = unread or state
        else:
            states[name] = state
    if unread is None and not states:
        unread = Absent("this kernel has no dbc<N>_state", missing=True)
    crashed = [name for name, state in states.items() if state in CRASHED]
    assigned = sum(state is ChannelState.ASSIGNED for state in states.values())
    found = {
        Quantity.CHANNELS_ASSIGNED: (unread, assigned, PATTERN),
        Quantity.CHANNELS_CRASHED: (None if crashed else unread, len(crashed), ", ".join(crashed) or PATTERN),
    }
    return {
        quantity: why or believed(quantity, count, f"{tree.shown(minor)}/{names}")
        for quantity, (why, count, names) in found.items()
    }


def _state(tree: Tree, path: Path) -> ChannelState | Absent:
    text = tree.text(path)
    if isinstance(text, Absent):
        return Absent(f"{tree.shown(path)}: {text.why}")
    if text not in {str(state.value) for state in ChannelState}:
        return Absent(f"{tree.shown(path)}: {text[:40]!a} is no state of a channel")
    return ChannelState(int(text))
