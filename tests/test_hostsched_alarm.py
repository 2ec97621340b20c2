"""A timer that two processes share."""

from __future__ import annotations

import os
import select

from hostsched_children import eventually
from npuops.hostsched.alarm import Alarm

HOUR_US = 3_600_000_000


def rings(alarm: Alarm) -> bool:
    return bool(select.select([alarm.descriptor], [], [], 0)[0])


def test_it_rings_once_it_was_not_put_off_and_says_so_until_somebody_heard() -> None:
    alarm = Alarm(1)
    other = Alarm(HOUR_US, os.dup(alarm.descriptor))
    alarm.put_off()
    eventually(lambda: rings(other))
    assert rings(alarm)
    other.quiet()
    assert not rings(alarm)
    other.quiet()  # what rang no more is no error
    alarm.put_off()
    eventually(lambda: rings(other))
    other.put_off()
    assert not rings(alarm), "for an hour"
    alarm.close()
    other.close()


def test_one_that_was_never_put_off_does_not_begin_by_itself() -> None:
    alarm, elder = Alarm(1), Alarm(1)
    alarm.put_off()
    eventually(lambda: rings(alarm))
    assert not rings(elder)
    alarm.close()
    elder.close()
