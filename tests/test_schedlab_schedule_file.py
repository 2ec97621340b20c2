"""The files that Python and the load program share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.eevdf.mix import Activity, Doing
from npuops.errors import DataError
from npuops.schedlab import schedule_file
from npuops.schedlab.mixes import four_phase
from npuops.schedlab.recording import UNSERVED
from npuops.schedlab.schedule_file import Calibration, ScheduleFile
from npuops.schedlab.training_mixes import training_mix

SPEED = Calibration(compute_per_ms=1_000_000, scan_per_ms=500_000)
SCRIPT = ScheduleFile(four_phase(phase_s=0.1), 1, (0,), SPEED)


def test_before_anything_happened_nothing_is_served_and_everybody_runs() -> None:
    for player, one in zip(SCRIPT.mix.players, SCRIPT.read(SCRIPT.blank), strict=True):
        assert one.record.name == player.name
        assert (one.record.done_ns == UNSERVED).all()
        assert one.record.progress.sum() == 0
        assert (one.status, one.error) == (None, 0)


@given(st.integers(0, len(SCRIPT.blank) - 1))
def test_truncated_results_are_a_clear_error(length: int) -> None:
    with pytest.raises(DataError, match="bytes instead of"):
        SCRIPT.read(SCRIPT.blank[:length])
    with pytest.raises(DataError):
        SCRIPT.pids(SCRIPT.blank[:length])


def test_results_of_something_else_are_a_clear_error() -> None:
    with pytest.raises(DataError, match="do not begin as such"):
        SCRIPT.read(bytes(len(SCRIPT.blank)))


@given(st.integers(0, 2**32), st.integers(1, 4))
def test_any_training_mix_has_a_schedule_and_the_same_every_time(seed: int, cpus: int) -> None:
    mix = training_mix(seed, cpus)
    script = ScheduleFile(mix, seed, range(cpus), SPEED)
    assert script.schedule == ScheduleFile(mix, seed, range(cpus), SPEED).schedule
    assert len(script.read(script.blank)) == len(mix.players)


def test_progress_is_in_microseconds_of_work_and_a_pipe_counts_turns() -> None:
    assert SPEED.units_per_us(Doing.COMPUTE) == SPEED.units_per_us(Doing.SERVE) == 1000
    assert SPEED.units_per_us(Doing.SCAN) == 500
    assert SPEED.units_per_us(Doing.PIPE) == 1


def test_the_header_in_c_has_the_same_version_and_doings_in_the_same_order() -> None:
    text = Path(schedule_file.__file__).with_name("load.h").read_text(encoding="ascii")
    assert f"MAGIC = {schedule_file.MAGIC:#x}, VERSION = {schedule_file.VERSION}" in text
    match = re.search(r"enum doing \{ (.*) \}", text)
    assert match is not None
    order = [Doing(word.lower()) for word in match[1].split(", ")]
    acts = [Activity(doing, work_us=1, gap_us=1, slo_us=1) for doing in order]
    assert [act.doing for act in acts] == order
    assert tuple(order) == schedule_file.DOINGS
