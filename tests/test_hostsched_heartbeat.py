"""The page that agent and reaper share, and the judge of its silence."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from npuops.hostsched.heartbeat import Heartbeat, Stall


def test_a_revoked_term_is_renewed_only_after_everything_is_put_back() -> None:
    agent = Heartbeat()
    reaper = Heartbeat(os.dup(agent.descriptor))
    agent.beat()
    assert (reaper.count, agent.held) == (1, True)
    reaper.revoke()
    assert (agent.held, agent.renew(), agent.held) == (False, False, False)
    reaper.done()
    assert (agent.renew(), agent.held, reaper.held) == (True, True, True)
    agent.close()
    reaper.close()


def test_silence_counts_from_the_last_beat() -> None:
    stall = Stall(300)
    looks = [(5, 0), (5, 100), (5, 200), (6, 300), (6, 400), (6, 500), (6, 600)]
    assert [stall.stalled(count, at) for count, at in looks] == [False] * 6 + [True]


def test_who_never_began_is_not_late() -> None:
    stall = Stall(300)
    assert not any(stall.stalled(0, at) for at in range(0, 10_000, 50))


@given(st.integers(1, 10**12))
def test_a_pause_of_the_whole_machine_is_not_held_against_the_agent(pause_us: int) -> None:
    stall = Stall(300_000)
    stall.stalled(1, 0)
    assert not stall.stalled(1, pause_us)
    assert not stall.stalled(2, pause_us + 1000)
