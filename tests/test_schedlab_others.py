"""Who else is on a simulated host."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from npuops.eevdf.rules import Rules
from npuops.hostsched.frame import INVOLUNTARY, RUN_NS, TURNS, VOLUNTARY
from npuops.schedlab.mixes import by_name
from npuops.schedlab.others import Others
from npuops.schedlab.simulated_host import SimulatedHost

MIX = by_name("four-phase")
MANY = Others(seed=3, busy_share=0.5, runnable=2.0, pushes_per_s=60.0)


@settings(deadline=None)
@given(st.integers(0, 99), st.sampled_from([0.0, 0.1, 0.8]), st.integers(1, 4), st.floats(0, 1))
def test_cpu_time_only_grows_and_never_beyond_the_machine(seed: int, share: float, cpus: int, used: float) -> None:
    presence = Others(seed=seed, busy_share=share).until(2_000_000)
    for now_us in range(0, 2_000_000, 70_000):
        ran_us = int(used * cpus * now_us)
        assert ran_us <= presence.busy_us(now_us, cpus, ran_us) <= cpus * now_us


def test_the_host_tells_of_them_and_the_mix_loses_nothing() -> None:
    alone, among = SimulatedHost(MIX, 1, Rules()), SimulatedHost(MIX, 1, Rules(), others=MANY)
    busy_us, most = 0, 0
    for moment_us in range(20_000, 2_000_000, 20_000):
        for host in (alone, among):
            host.run_until(moment_us)
        empty, full = alone.frame(), among.frame()
        assert (full.counters[:, [RUN_NS, VOLUNTARY]] == empty.counters[:, [RUN_NS, VOLUNTARY]]).all()
        assert full.host.busy_us >= busy_us
        busy_us, most = full.host.busy_us, max(most, full.host.runnable - empty.host.runnable)
    assert busy_us >= empty.host.busy_us
    assert most >= 2
    pushes = full.counters - empty.counters
    assert (pushes[:, TURNS] == pushes[:, INVOLUNTARY]).all()
    assert np.allclose(pushes[:, INVOLUNTARY], empty.counters[:, RUN_NS] * 60e-9, atol=1)


def test_a_copy_meets_the_same_others() -> None:
    host = SimulatedHost(MIX, 1, Rules(), others=MANY)
    host.run_until(500_000)
    host.frame()
    other = host.copy()
    for each in (host, other):
        each.run_until(900_000)
    assert host.frame().host == other.frame().host
