"""The page and the alarm that agent and reaper share."""

from __future__ import annotations

import os
from pathlib import Path

from hostsched_children import eventually, is_readable
from npuops.hostsched.heartbeat import Heartbeat

MINUTE_US = 60_000_000


def test_a_revoked_term_is_renewed_only_after_everything_is_put_back() -> None:
    agent = Heartbeat(MINUTE_US)
    page, timer = agent.descriptors
    reaper = Heartbeat(MINUTE_US, (os.dup(page), os.dup(timer)))
    agent.beat()
    assert (reaper.count, agent.held) == (1, True)
    reaper.revoke()
    assert (agent.held, agent.renew(), agent.held) == (False, False, False)
    reaper.done()
    assert (agent.renew(), agent.held, reaper.held) == (True, True, True)
    agent.close()
    reaper.close()


def test_silence_rings_and_a_beat_ends_it() -> None:
    hasty = Heartbeat(3)
    page, timer = hasty.descriptors
    patient = Heartbeat(MINUTE_US, (os.dup(page), os.dup(timer)))
    assert not is_readable(hasty.alarm.descriptor), "who never began is not late"
    hasty.beat()
    eventually(lambda: is_readable(patient.alarm.descriptor))
    patient.beat()
    assert not is_readable(hasty.alarm.descriptor)
    hasty.close()
    patient.close()


def test_alarm_and_grace_together_are_the_limit() -> None:
    heartbeat = Heartbeat(MINUTE_US)
    heartbeat.beat()
    told = Path(f"/proc/self/fdinfo/{heartbeat.alarm.descriptor}").read_text()
    left_s = int(told.partition("it_value: (")[2].partition(",")[0])
    assert heartbeat.grace_us == 20_000_000
    assert left_s <= 40
    heartbeat.close()
