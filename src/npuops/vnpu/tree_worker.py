"""A thread that writes the tree: a slow disk must not hold up the device's loop."""

from __future__ import annotations

import logging
import threading

from npuops.vnpu.device_events import DeviceEvent
from npuops.vnpu.device_telemetry import Telemetry
from npuops.vnpu.sysfs import SysfsTree

_log = logging.getLogger(__name__)


class TreeWorker:
    """Shows the newest telemetry; what came and went while it was writing is skipped, events never are."""

    def __init__(self, tree: SysfsTree) -> None:
        """Start."""
        self._tree = tree
        self._changed = threading.Condition()
        self._newest: Telemetry | None = None
        self._events: list[DeviceEvent] = []
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="tree", daemon=True)
        self._thread.start()

    def show(self, seen: Telemetry, events: list[DeviceEvent]) -> None:
        """Soon, in the worker's own time."""
        with self._changed:
            self._newest = seen
            self._events += events
            self._changed.notify()

    def close(self) -> None:
        """Write no more, and remove the tree."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()
        self._tree.remove()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._newest is None and not self._ending:
                    self._changed.wait()
                if self._ending:
                    return
                seen, self._newest = self._newest, None
                events, self._events = self._events, []
            if seen is not None:
                self._write(seen, events)

    def _write(self, seen: Telemetry, events: list[DeviceEvent]) -> None:
        try:
            self._tree.show(seen, events)
        except OSError as error:  # a full disk blinds the onlookers; the device itself goes on
            _log.warning("cannot write the tree: %s", error)
