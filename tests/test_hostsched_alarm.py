"""A timer that two processes share."""

from __future__ import annotations

import os

import pytest

from hostsched_children import eventually, is_readable
from npuops.hostsched.alarm import Alarm
from npuops.hostsched.knobs import NoSuchKnobError

HOUR_US = 3_600_000_000


def test_it_rings_once_it_was_not_put_off_and_says_so_until_somebody_heard() -> None:
    alarm = Alarm(1)
    other = Alarm(HOUR_US, os.dup(alarm.descriptor))
    alarm.put_off()
    eventually(lambda: is_readable(other.descriptor))
    assert is_readable(alarm.descriptor)
    other.quiet()
    assert not is_readable(alarm.descriptor)
    other.quiet()  # what rang no more is no error
    alarm.put_off()
    eventually(lambda: is_readable(other.descriptor))
    other.put_off()
    assert not is_readable(alarm.descriptor), "for an hour"
    alarm.close()
    other.close()


def test_one_that_was_never_put_off_does_not_begin_by_itself() -> None:
    alarm, elder = Alarm(1), Alarm(1)
    alarm.put_off()
    eventually(lambda: is_readable(alarm.descriptor))
    assert not is_readable(elder.descriptor)
    alarm.close()
    elder.close()


def test_a_timer_that_cannot_be_set_is_an_error_and_no_silence() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    alarm = Alarm(1, reader)  # no timer at all
    with pytest.raises(NoSuchKnobError, match="no timer for the reaper: Invalid argument"):
        alarm.put_off()
    alarm.close()
