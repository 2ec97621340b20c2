from __future__ import annotations

import pytest

from npuops.vnpu.pacing import DeviceTime, Pacing


@pytest.mark.parametrize("pacing", [Pacing.REALTIME, Pacing.FAST])
def test_the_devices_time_begins_at_zero_and_follows_the_system(pacing: Pacing) -> None:
    time = DeviceTime(pacing, 5_000)
    assert [time.now_us(system_us) for system_us in (5_000, 5_001, 9_000)] == [0, 1, 4_000]


def test_manual_time_stands_still_until_it_is_moved() -> None:
    time = DeviceTime(Pacing.MANUAL, 5_000)
    assert time.now_us(99_000) == 0
    time.jump_to(700, 99_000)
    assert time.now_us(10**9) == 700


def test_a_jump_goes_forward_and_never_back() -> None:
    time = DeviceTime(Pacing.FAST, 0)
    time.jump_to(1_000, 10)
    assert time.now_us(10) == 1_000
    time.jump_to(500, 20)
    assert time.now_us(20) == 1_010
