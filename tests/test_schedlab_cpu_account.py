"""Who had the CPUs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from npuops.errors import DataError
from npuops.schedlab.cpu_account import clean_share, read_idle_us, read_switches


def test_idle_time_is_that_of_the_cpus_asked_for(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    rows = ["cpu  9 9 9 99 9 9 9 9 9 9", "cpu0 1 0 1 100 20 0 0 7 0 0", "cpu1 1 0 1 300 0 0 0 0 0 0", "intr 5 cpu0"]
    stat.write_text("\n".join(rows))
    tick_us = 1_000_000 // os.sysconf("SC_CLK_TCK")
    assert read_idle_us((0,), stat) == 120 * tick_us
    assert read_idle_us((0, 1), stat) == 420 * tick_us
    with pytest.raises(DataError, match="CPU 2"):
        read_idle_us((1, 2), stat)


def test_context_switches_are_those_of_the_whole_machine(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu0 1 2 3 4\nctxt 4711\nbtime 12\n")
    assert read_switches(stat) == 4711
    assert 0 < read_switches() <= read_switches()
    stat.write_text("cpu0 1 2 3 4\n")
    with pytest.raises(DataError, match="context switches"):
        read_switches(stat)


def test_idle_time_of_this_machine_only_grows() -> None:
    cpus = os.sched_getaffinity(0)
    assert 0 < read_idle_us(cpus) <= read_idle_us(cpus)


def test_what_is_neither_ours_nor_idle_is_somebody_elses() -> None:
    assert clean_share(idle_us=400, ours_us=600, window_us=1000, cpus=1) == 1.0
    assert clean_share(idle_us=400, ours_us=600, window_us=1000, cpus=2) == 0.5
    assert clean_share(idle_us=700, ours_us=600, window_us=1000, cpus=1) == 1.0, "the kernel's figures are rounded"
    assert clean_share(idle_us=0, ours_us=0, window_us=0, cpus=1) == 1.0
