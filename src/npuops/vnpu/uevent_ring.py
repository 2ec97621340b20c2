"""The lines of a virtual NPU's `uevents`: what happened to the device, as its onlookers are told. Pure.

The kernel broadcasts such lines with a SEQNUM; here the last ones are kept in a file. A fault shows by what it does to
the device, never by its name.
"""

from __future__ import annotations

from collections import deque

from npuops.devices.vnpu_tree import EVENT_LIMIT, EVENTS_KEPT
from npuops.vnpu.device_events import ClockChanged, DeviceEvent, LifeChanged, MemoryErrors
from npuops.vnpu.life import STATUS, Life


class UeventRing:
    """The last `EVENTS_KEPT` lines of one device. For one thread.

    Attributes:
        added: lines so far, and the SEQNUM of the last one.
    """

    def __init__(self, name: str) -> None:
        """Begin with the device's arrival.

        Args:
            name: the device's.
        """
        self.added = 0
        self._arrival = f"DRIVER=vnpu VNPU_NAME={name}"
        self._lines: deque[str] = deque(maxlen=EVENTS_KEPT)
        self._add(0.0, "add", self._arrival)

    @property
    def text(self) -> str:
        """The whole file."""
        return "".join(self._lines)

    def hear(self, event: DeviceEvent) -> None:
        """Keep a line, if the event is one that can be seen from outside."""
        if isinstance(event, LifeChanged):
            if event.before is Life.GONE:
                self._add(event.at_us, "add", self._arrival)
            action = {Life.READY: "online", Life.OFF: "offline", Life.GONE: "remove"}.get(event.after, "change")
            why = "" if event.why.startswith("fault") else f" WHY={'_'.join(event.why.split())}"
            self._add(event.at_us, action, f"STATUS={STATUS[event.after]}{why}")
        elif isinstance(event, ClockChanged) and event.after_mhz < event.before_mhz:
            temperature = round(event.temperature_c * 1e3)
            self._add(event.at_us, "change", f"THROTTLED_MHZ={event.after_mhz:.0f} TEMP={temperature}")
        elif isinstance(event, MemoryErrors):
            self._add(event.at_us, "change", f"CE={event.corrected} UE={event.uncorrected}")

    def _add(self, at_us: float, action: str, fields: str) -> None:
        self.added += 1
        line = f"{round(at_us)} {action} SEQNUM={self.added} {fields}"
        printable = "".join(char if char.isprintable() else "?" for char in line)
        self._lines.append(printable.encode()[: EVENT_LIMIT - 1].decode(errors="ignore") + "\n")
