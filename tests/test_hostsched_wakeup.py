from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from npuops.clock import SystemClock
from npuops.hostsched.command import FORWARDED
from npuops.hostsched.wakeup import Wakeup

LONG_US = 60_000_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_sleep_raises_nothing_and_is_told_once(number: signal.Signals) -> None:
    clock, before = SystemClock(), signal.getsignal(number)
    with Wakeup(clock.now_us) as wakeup:
        os.kill(os.getpid(), number)
        assert wakeup.sleep_until(clock.now_us() + LONG_US)
        assert wakeup.caught() == (number,)
        assert wakeup.caught() == ()
        assert not wakeup.sleep_until(clock.now_us())
    assert signal.getsignal(number) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_that_comes_while_it_sleeps_wakes_it() -> None:
    clock = SystemClock()
    with Wakeup(clock.now_us) as wakeup:
        code = f"import os, signal; os.kill({os.getpid()}, signal.SIGTERM)"
        sender = subprocess.Popen([sys.executable, "-c", code])
        while not wakeup.caught():
            wakeup.sleep_until(clock.now_us() + LONG_US)
        assert sender.wait(60) == 0


def test_the_end_of_a_child_wakes_but_is_no_signal_to_end_on() -> None:
    clock = SystemClock()
    with Wakeup(clock.now_us) as wakeup:
        child = subprocess.Popen([sys.executable, "-c", ""])
        while child.poll() is None:
            assert wakeup.sleep_until(clock.now_us() + LONG_US)
        assert wakeup.caught() == ()


def test_without_a_signal_it_sleeps_until_the_moment() -> None:
    clock = SystemClock()
    with Wakeup(clock.now_us) as wakeup:
        moment = clock.now_us() + 3_000
        assert not wakeup.sleep_until(moment)
        assert clock.now_us() >= moment


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_what_nohup_or_a_shell_ignores_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Wakeup(SystemClock().now_us, FORWARDED) as wakeup:
            os.kill(os.getpid(), number)
            assert wakeup.caught() == ()
            assert signal.getsignal(number) is signal.SIG_IGN, "so it stays for the command that is run"
    finally:
        signal.signal(number, before)


def test_many_signals_do_not_fill_anything() -> None:
    with Wakeup(lambda: time.perf_counter_ns() // 1000) as wakeup:
        for _ in range(10_000):
            signal.raise_signal(signal.SIGHUP)
        assert len(wakeup.caught()) == 10_000
