"""A thread that writes the tree: a slow disk must not hold up the device's loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from npuops.vnpu.device_events import DeviceEvent
from npuops.vnpu.device_telemetry import Telemetry
from npuops.vnpu.sysfs import SysfsTree
from npuops.vnpu.uevent_ring import UeventRing

_log = logging.getLogger(__name__)


class TreeWorker:
    """Shows the newest telemetry; what came and went while it was writing is skipped, events are kept in their ring."""

    def __init__(self, tree: SysfsTree) -> None:
        """Start."""
        self._tree, self._ring = tree, UeventRing(tree.name)
        self._changed = threading.Condition()
        self._newest: Telemetry | None = None
        self._ending = False
        self._failed: int | None = None
        self._thread = threading.Thread(target=self._run, name="tree", daemon=True)
        self._thread.start()

    def show(self, seen: Telemetry, events: Iterable[DeviceEvent]) -> None:
        """Soon, in the worker's own time."""
        with self._changed:
            self._newest = seen
            for event in events:
                self._ring.hear(event)
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
                events = self._ring.text
            if seen is not None:
                self._write(seen, events)

    def _write(self, seen: Telemetry, events: str) -> None:
        """A full disk blinds the onlookers; the device itself goes on, and complains once."""
        try:
            self._tree.show(seen, events)
        except OSError as error:
            if error.errno != self._failed:
                _log.warning("cannot write the tree: %s", error)
            self._failed = error.errno
            return
        if self._failed is not None:
            _log.warning("the tree is written again")
        self._failed = None
