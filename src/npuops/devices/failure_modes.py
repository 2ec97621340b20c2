"""The failure modes of an NPU in production, and by which signs each is recognised from its telemetry alone.

The one table of it: `suspicions.py` is these signs in code, docs/devices.md shows it, and `vnpu/faults.py` says what
produces each on a virtual NPU. The numbers F1 to F8 are those of the guide that npuops follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Mode(StrEnum):
    """What goes wrong."""

    OFFLINE = "F1"
    THROTTLE = "F2"
    ACCURACY = "F3"
    MEMORY = "F4"
    OPERATOR = "F5"
    VERSION = "F6"
    NEIGHBOUR = "F7"
    FIRMWARE = "F8"


@dataclass(frozen=True, slots=True)
class FailureMode:
    """A row of the table.

    Attributes:
        name: in the words of people.
        signs: what is seen.
        first: what to do first.
    """

    name: str
    signs: str
    first: str


FAILURE_MODES: Final[Mapping[Mode, FailureMode]] = {
    Mode.OFFLINE: FailureMode(
        "device offline",
        "it was here and is gone; its status is not online; resets that nobody ordered, thermal trips or uncorrected "
        "errors rose, a counter started over, or a workload's sub-system crashed; a boot refused for a version counts "
        "as F6 instead",
        "send its work to another device or the CPU, read dmesg, reset it",
    ),
    Mode.THROTTLE: FailureMode(
        "thermal throttle",
        "throttle events rose, or it is at its throttling temperature; of a device that tripped, F1 says it",
        "let fewer requests through, and see to its cooling",
    ),
    Mode.ACCURACY: FailureMode(
        "quantization accuracy loss",
        "canaries come out wrong, and from then on all of them, while its memory reports no uncorrected error",
        "go back to the artifact before, and put this one through its gate again",
    ),
    Mode.MEMORY: FailureMode(
        "out of memory",
        "it refused programs or jobs for want of memory",
        "unload what nobody uses, or take a smaller batch or model",
    ),
    Mode.OPERATOR: FailureMode(
        "unsupported operator",
        "it refused programs for an operator that it lacks",
        "npuops check tells which operator; build with a CPU fallback, or replace it",
    ),
    Mode.VERSION: FailureMode(
        "version mismatch",
        "it refused programs, or its firmware at boot, for their version",
        "bring kernel driver and firmware to one release, then build again",
    ),
    Mode.NEIGHBOUR: FailureMode(
        "noisy neighbour",
        "one tenant has more than two thirds of the busy time, another waits more than half as long as it works, and "
        "it is not F1",
        "give the tenant that suffers a higher priority, or move the other one",
    ),
    Mode.FIRMWARE: FailureMode(
        "firmware bug",
        "some canaries come out wrong and later ones right, while its memory reports no uncorrected error",
        "stop using it for answers that matter, and go back to the firmware before",
    ),
}
