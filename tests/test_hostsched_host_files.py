"""The machine as a whole."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

from hostsched_readers import READERS, the_library, use
from npuops.hostsched.host_files import HostFiles, runnable_others, some_pressure_us, times_us
from npuops.hostsched.look_library import LOAD, PRESSURE, TIMES, CHost
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


@pytest.mark.parametrize("reader", READERS)
def test_this_machine_is_told_and_its_counters_rise(reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors = Descriptors()
    files = HostFiles(descriptors, use(reader, monkeypatch))
    first = files.read(0)
    later = files.read(100_000)
    assert first.cpus == os.cpu_count()
    assert 0 < first.busy_us <= later.busy_us
    assert 0 <= first.steal_us <= later.steal_us
    assert (first.pressure_us is not None) == _tells_pressure()
    assert files.read(100_001).busy_us == later.busy_us, "the slow part is read in its time only"
    descriptors.close()


@pytest.mark.parametrize("reader", READERS)
def test_whoever_is_made_moves_the_newest_number(reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors = Descriptors()
    files = HostFiles(descriptors, use(reader, monkeypatch))
    before = files.newest()
    with subprocess.Popen(("true",)) as process:
        assert files.newest() != before
    assert process.returncode == 0
    descriptors.close()


TEXTS = (
    b"0.20 0.18 0.12 3/80 11206\n",
    b"cpu  100 20 30 4000 500 6 7 80 90 10\ncpu0 1 1 1 1\n",
    b"some avg10=0.00 avg60=0.00 avg300=0.00 total=23606686997\nfull avg10=0 avg60=0 avg300=0 total=5\n",
)


def test_our_c_reads_the_same_numbers(tmp_path: Path) -> None:
    library, raw, files = the_library(), CHost(), []
    for at, text in enumerate(TEXTS):
        (tmp_path / str(at)).write_bytes(text)
        files.append(os.open(tmp_path / str(at), os.O_RDONLY))
    assert library.host(*files, ctypes.addressof(raw)) == LOAD | TIMES | PRESSURE
    assert (raw.busy_ticks, raw.steal_ticks) == times_us(TEXTS[1], 1)
    assert (raw.runnable, raw.newest) == (runnable_others(TEXTS[0]), 11206)
    assert raw.pressure_us == some_pressure_us(TEXTS[2])
    for at, file in enumerate(files):
        for cut in (0, 3, len(TEXTS[at]) // 5):
            (tmp_path / str(at)).write_bytes(TEXTS[at][:cut])
            assert library.host(*(file if each == at else -1 for each in range(3)), ctypes.addressof(raw)) == 0
        os.close(file)


def _tells_pressure() -> bool:
    try:
        return bool(Path("/proc/pressure/cpu").read_bytes())
    except OSError:
        return False
