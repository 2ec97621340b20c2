"""The one loop that reads devices, shared by all who want to know: exporter, table, scheduler, doctor."""

from __future__ import annotations

import threading
from typing import Final

from npuops.clock import Clock
from npuops.devices.evidence import Canary
from npuops.devices.sampler import Sample, Sampler
from npuops.errors import OptionError

SHORTEST_PERIOD_S: Final = 1.0
"""Reading ivpu's busy time takes the lock that submissions need; its source asks for one second."""
_NAP_US: Final = 100_000
"""How long `stop` may have to wait for a sleeping loop."""


class SamplingWorker:
    """Samples every period, in a thread of its own or in the caller's.

    Consumers either ask `latest`, or observe the sampler's `DevicesSampled` and `HealthChanged`. A read that the
    kernel does not answer blocks this thread alone: the samples that `latest` gives then grow old, which their
    `taken_us` shows.
    """

    def __init__(self, sampler: Sampler, clock: Clock, *, period_s: float = SHORTEST_PERIOD_S) -> None:
        """Prepare the loop; `start` or `run` begins it.

        Raises:
            OptionError: the period is shorter than a second, or no number.
        """
        if not SHORTEST_PERIOD_S <= period_s < float("inf"):
            raise OptionError(
                f"a period of {period_s:g} s between looks",
                advice=f"take {SHORTEST_PERIOD_S:g} s or more: a look holds a lock that inferences need",
            )
        self._sampler = sampler
        self._clock = clock
        self._period_us = round(period_s * 1e6)
        self._lock = threading.Lock()
        self._latest: tuple[Sample, ...] = ()
        self._canaries: dict[str, Canary] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def latest(self) -> tuple[Sample, ...]:
        """What the last complete look gave; empty before the first."""
        with self._lock:
            return self._latest

    def report_canary(self, device_id: str, canary: Canary) -> None:
        """From any thread: the result of an inference with a known answer, for the next look."""
        with self._lock:
            self._canaries[device_id] = canary

    def start(self) -> None:
        """Run the loop in a thread that ends with the process."""
        self._thread = threading.Thread(target=self.run, name="npuops-devices", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the loop; returns when the thread has ended, or after two seconds if a read is stuck."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def run(self, rounds: int | None = None) -> None:
        """Look, sleep to the next period, and so on; `rounds` looks, or until `stop`."""
        done = 0
        while not self._stopped.is_set():
            due_us = self._clock.now_us() + self._period_us
            self._look()
            done += 1
            if rounds is not None and done >= rounds:
                return
            while not self._stopped.is_set() and self._clock.now_us() < due_us:
                self._clock.sleep_until(min(due_us, self._clock.now_us() + _NAP_US))

    def _look(self) -> None:
        with self._lock:
            canaries, self._canaries = self._canaries, {}
        for device_id, canary in canaries.items():
            self._sampler.report_canary(device_id, canary)
        samples = self._sampler.sample()
        with self._lock:
            self._latest = samples
