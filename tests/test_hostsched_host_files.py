"""The machine as a whole."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from npuops.hostsched.host_files import HostFiles, runnable_others, some_pressure_us, times_us
from npuops.hostsched.proc_files import Descriptors


def test_busy_is_everything_but_idle_waiting_for_disks_and_stolen_and_counts_guests_once() -> None:
    text = b"cpu  100 20 30 4000 500 6 7 80 90 10\ncpu0 1 1 1 1\n"
    assert times_us(text, 10_000) == (163 * 10_000, 80 * 10_000)


def test_whoever_asks_is_not_among_the_runnable() -> None:
    assert runnable_others(b"0.20 0.18 0.12 3/80 11206\n") == 2
    assert runnable_others(b"0.20 0.18 0.12 0/80 11206\n") == 0


def test_pressure_is_that_of_some_not_of_all() -> None:
    text = b"some avg10=0.00 avg60=0.00 avg300=0.00 total=23606686997\nfull avg10=0 avg60=0 avg300=0 total=5\n"
    assert some_pressure_us(text) == 23_606_686_997


def test_this_machine_is_told_and_its_counters_rise() -> None:
    descriptors = Descriptors()
    files = HostFiles(descriptors)
    first = files.read(0)
    later = files.read(100_000)
    assert first.cpus == os.cpu_count()
    assert 0 < first.busy_us <= later.busy_us
    assert 0 <= first.steal_us <= later.steal_us
    assert (first.pressure_us is not None) == _tells_pressure()
    assert files.read(100_001).busy_us == later.busy_us, "the slow part is read in its time only"
    descriptors.close()


def test_whoever_is_made_moves_the_newest_number() -> None:
    descriptors = Descriptors()
    files = HostFiles(descriptors)
    before = files.newest()
    with subprocess.Popen(("true",)) as process:
        assert files.newest() != before
    assert process.returncode == 0
    descriptors.close()


def _tells_pressure() -> bool:
    try:
        return bool(Path("/proc/pressure/cpu").read_bytes())
    except OSError:
        return False
