"""The rules, asked step by step about a CPU that somebody else steers."""

import pytest

from npuops.eevdf.follower import Follower
from npuops.eevdf.rules import Rules
from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.errors import OptionError

MS = 1_000_000


def follower(*settings: Setting, blur_ns: int = 0) -> Follower:
    return Follower(settings or (Setting(), Setting()), Rules(), blur_ns)


def test_a_tick_after_its_slice_ends_a_turn_and_one_before_does_not() -> None:
    two = follower()
    two.wake(0, 0)
    two.change(0, 0, stays=False)
    assert two.wake(0, 1).task == 0, "who was picked is protected"
    assert two.tick(MS).task == 0
    assert two.tick(2 * MS).task == 1
    assert two.running == 0, "it is asked, and does what it is told"
    assert two.change(3 * MS, 1, stays=True).task == 1


def test_what_was_booked_counts_and_not_what_passed() -> None:
    for booked, expected in ((MS // 2, 0), (3 * MS, 1)):
        two = follower()
        two.wake(0, 0)
        two.wake(0, 1)
        two.change(0, 0, stays=False)
        two.change(2 * MS, 1, stays=True, booked_ns=booked)
        two.change(3 * MS, -1, stays=True, booked_ns=MS)
        assert two.change(3 * MS, 0, stays=False).task == expected


def test_an_idle_task_gives_way_at_once() -> None:
    two = follower(Setting(), Setting(SchedPolicy.IDLE))
    two.wake(0, 1)
    two.change(0, 1, stays=False)
    assert two.wake(MS, 0) == (0, True, 2)


def test_an_answer_that_hangs_on_a_little_cpu_time_is_not_sure() -> None:
    for blur_ns, sure in ((0, True), (50_000, False)):
        two = follower(blur_ns=blur_ns)
        two.wake(0, 0)
        two.wake(0, 1)
        assert two.change(0, 0, stays=False).sure == sure, "both want it alike"


def test_a_reservation_is_not_followed() -> None:
    with pytest.raises(OptionError):
        follower(Setting(SchedPolicy.DEADLINE, runtime_us=1000, period_us=2000))
