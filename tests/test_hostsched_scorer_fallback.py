"""A policy whose device goes away goes on without it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from made_policy import made_policy
from made_states import made_state
from npuops.events import Warned
from npuops.hostsched.agent_facts import NetworkClosed
from npuops.hostsched.learned_policy import opened_learned
from npuops.hostsched.scorer import encode, encode_levels
from npuops.hostsched.scorer_fallback import FallingBack
from npuops.hostsched.scorer_session import NumpyScorer, open_scorer
from npuops.testing import EventLog
from npuops.vnpu.daemon import Order
from npuops.vnpu.device_switch import up
from npuops.vnpu.pacing import Pacing
from npuops.vnpu.profile import load_profile, machine_spec
from virtual_devices import home  # noqa: F401 - a fixture


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_when_its_device_is_gone_or_hangs_the_network_runs_here_and_that_is_told_once(
    tmp_path: Path,
    how: signal.Signals,
) -> None:
    policy, log = made_policy(tmp_path / "made", "vnpu:rk3588"), EventLog()
    pid = up(Order(name="idle", spec=machine_spec(load_profile("rk3588")), pacing=Pacing.REALTIME)).pid
    scene = encode(made_state(4, 2))
    levels = encode_levels(scene, np.zeros((3, 4), np.int8))
    host = NumpyScorer(policy.weights)
    scorer = FallingBack(open_scorer(policy, "npu:idle"), host, log)
    try:
        scorer.score(scene, levels)
        assert scorer.placement == "npu:idle"
        os.kill(pid, how)
        found = scorer.score(scene, levels)
    finally:
        if how == signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
    assert np.array_equal(found.miss, host.score(scene, levels).miss)
    assert scorer.placement == "numpy"
    scorer.score(scene, levels)
    (warning,) = log.of(Warned)
    assert "the network runs on numpy from now on" in warning.message
    scorer.close()


@pytest.mark.usefixtures("home")
def test_what_was_decided_on_the_device_until_then_is_still_told(tmp_path: Path) -> None:
    policy, log = made_policy(tmp_path / "made", "vnpu:rk3588"), EventLog()
    pid = up(Order(name="idle", spec=machine_spec(load_profile("rk3588")), pacing=Pacing.REALTIME)).pid
    with opened_learned(policy, "npu:idle", observe=log) as learned:
        learned.decide(made_state(3, 0, at_us=1_000_000))
        os.kill(pid, signal.SIGKILL)
        learned.decide(made_state(3, 1, at_us=2_000_000))
    (closed,) = log.of(NetworkClosed)
    assert closed.inferences > 0
    assert closed.modelled_mj is not None
    assert closed.modelled_mj > 0
