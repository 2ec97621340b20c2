from __future__ import annotations

import select
import threading
import time

from npuops.vnpu.wake import Alarm, Bell, quieten


def readable(descriptor: int, limit_ms: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(limit_ms))


def test_an_alarm_rings_after_its_time_once_and_not_after_it_was_taken_back() -> None:
    alarm = Alarm()
    started = time.monotonic()
    alarm.set(20_000)
    assert readable(alarm.fileno(), 10_000)
    assert time.monotonic() - started >= 0.02
    quieten(alarm.fileno())
    quieten(alarm.fileno())
    assert not readable(alarm.fileno(), 30)
    alarm.set(0)
    assert readable(alarm.fileno(), 10_000)
    alarm.set(5_000)
    alarm.set(None)
    assert not readable(alarm.fileno(), 30)
    alarm.close()


def test_a_bell_is_heard_from_another_thread_until_it_is_quietened() -> None:
    bell = Bell()
    assert not readable(bell.fileno(), 0)
    thread = threading.Thread(target=bell.ring)
    thread.start()
    assert readable(bell.fileno(), 10_000)
    thread.join()
    bell.ring()
    quieten(bell.fileno())
    assert not readable(bell.fileno(), 0)
    bell.close()
