"""The simulated server does what the judges of the real one say, and nothing is lost in it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from npuops.hostsched.serving_guard import ServingGuard
from npuops.hostsched.serving_policies import Aimd, CurveScorer, OwnRule, ServingPolicy, SloRule, SpillRule
from npuops.hostsched.serving_state import ServingSetting
from npuops.runtime.batch_curve import BatchCurve
from npuops.schedlab.serving_play import (
    affine,
    capacity,
    goodput_share,
    noise,
    oracle,
    play,
    simulating,
    stepwise,
    switching,
)
from npuops.schedlab.serving_simulator import PENDING, REFUSED, ServingScene, SimulatedDevice, SimulatedServer

OWN = ServingSetting(10_000.0, 1024)
CURVE = affine(2_000, 500, 32)


def scene(arrivals: list[int], slo_us: int = 15_000, curve: BatchCurve = CURVE, **rest: object) -> ServingScene:
    devices = (SimulatedDevice(name="npu", curve=curve),)
    return ServingScene(arrivals_us=arrivals, slo_us=slo_us, devices=devices, **rest)  # type: ignore[arg-type]


def test_a_lone_request_takes_its_run_and_no_longer() -> None:
    server = SimulatedServer(scene([1_000]), OWN)
    server.run_until(1e6)
    assert server.latency_us == [2_500]


def test_what_comes_during_a_run_shares_the_next() -> None:
    server = SimulatedServer(scene([0, 100, 200, 300, 400]), OWN)
    server.run_until(1e6)
    assert server.latency_us[0] == 2_500
    assert len({at + latency for at, latency in zip([100, 200, 300, 400], server.latency_us[1:], strict=True)}) == 1
    assert server.runs == 2


def test_a_full_queue_refuses() -> None:
    server = SimulatedServer(scene([0] * 10, deadlines=False), ServingSetting(3_000.0, 3))
    server.run_until(1e6)
    assert server.latency_us.count(REFUSED) > 0
    assert PENDING not in server.latency_us


def test_a_fork_does_not_touch_the_present() -> None:
    server = SimulatedServer(scene([0, 100, 5_000]), OWN)
    server.run_until(1_000)
    twin = server.fork()
    twin.run_until(1e6)
    assert (server.now_us, PENDING in server.latency_us, PENDING in twin.latency_us) == (1_000, True, False)
    server.run_until(1e6)
    assert server.latency_us == twin.latency_us


def test_a_fork_into_another_future_gets_its_arrivals_and_leaves_the_present_its_own() -> None:
    server = SimulatedServer(scene([0, 100, 5_000]), OWN)
    server.run_until(1_000)
    twin = server.fork([2_000, 3_000, 9_000])
    twin.run_until(1e6)
    assert len(twin.latency_us) == 5
    assert PENDING not in twin.latency_us
    assert (len(server.latency_us), server.scene.arrivals_us) == (3, [0, 100, 5_000])


def test_two_devices_share_the_load() -> None:
    both = tuple(SimulatedDevice(name=name, curve=CURVE) for name in ("a", "b"))
    server = SimulatedServer(ServingScene(arrivals_us=[0, 0], slo_us=3_000, devices=both), ServingSetting(1.0, 8))
    server.run_until(1e6)
    assert server.latency_us == [2_500, 2_500]


FAST, SLOW = affine(0, 3_000, 8), affine(0, 12_000, 8)


def unequal(arrivals: list[int], slo_us: int = 40_000, slow: BatchCurve = SLOW, **rest: object) -> ServingScene:
    devices = (SimulatedDevice(name="fast", curve=FAST), SimulatedDevice(name="slow", curve=slow))
    return ServingScene(arrivals_us=arrivals, slo_us=slo_us, devices=devices, noise=noise(4), **rest)  # type: ignore[arg-type]


def crowd(seed: int = 4) -> list[int]:
    """Now and then more than the fast device can do alone."""
    rate = capacity(FAST)
    return stepwise([0.3 * rate, 1.15 * rate, 0.3 * rate, 1.15 * rate], 0.4, seed)


def test_the_own_rule_leaves_a_device_idle_that_would_be_done_later() -> None:
    assert play(unequal(crowd()), OwnRule(OWN), OWN).answered["slow"] == 0


def test_a_spill_brings_the_slow_device_in_and_more_is_answered_in_time() -> None:
    ends = [play(unequal(crowd()), each, OWN) for each in (OwnRule(OWN), SpillRule(OWN))]
    assert ends[1].answered["slow"] > 0
    assert goodput_share(ends[1]) > goodput_share(ends[0])


def test_a_light_load_is_never_spilled() -> None:
    light = stepwise([0.2 * capacity(FAST)], 1.0, seed=5)
    server = play(unequal(light, slo_us=60_000), SpillRule(OWN), OWN)
    assert server.answered["slow"] < 0.01 * len(light)
    assert goodput_share(server) == 1


def test_a_device_that_is_too_slow_for_every_deadline_sends_nobody_away() -> None:
    slow = affine(0, 400_000, 1)
    light = stepwise([0.2 * capacity(FAST)], 0.5, seed=6)
    assert goodput_share(play(unequal(light, slow=slow), OwnRule(OWN), OWN)) == 1


def test_under_the_scorer_the_slow_device_works_while_there_is_a_crowd_and_rests_before_and_after() -> None:
    rate = capacity(FAST)
    changing = unequal(stepwise([0.2 * rate, 1.2 * rate, 0.2 * rate], 1.0, seed=7), slo_us=60_000)
    server, scorer, guard = SimulatedServer(changing, OWN), CurveScorer(OWN), ServingGuard(OWN)
    helped = []
    while server.now_us < 3e6:
        frame = server.frame()
        expected = scorer.expected
        server.setting = guard.allow(frame, scorer.decide(frame), expected)
        server.run_until(server.now_us + 100_000)
        helped.append(server.answered["slow"])
    assert helped[9] == 0
    assert helped[20] > 5
    assert helped[-1] <= helped[21]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 200_000), max_size=60).map(sorted),
    st.integers(3_000, 60_000),
    st.sampled_from([OwnRule(OWN), SloRule(OWN), SpillRule(OWN)]),
    st.booleans(),
    st.booleans(),
)
def test_every_request_ends_once_whatever_comes(
    arrivals: list[int], slo_us: int, policy: ServingPolicy, deadlines: bool, two: bool
) -> None:
    one = scene(arrivals, slo_us, deadlines=deadlines, noise=noise(0))
    server = play(unequal(arrivals, slo_us, deadlines=deadlines) if two else one, policy, OWN)
    assert PENDING not in server.latency_us
    assert 0 <= goodput_share(server) <= 1


def test_under_overload_the_scorer_answers_more_in_time_than_the_own_rule_and_aimd() -> None:
    rate = capacity(CURVE)
    overloaded = scene(stepwise([0.3 * rate, 1.3 * rate, 0.6 * rate], 0.4, seed=1), noise=noise(1))
    found = [goodput_share(play(overloaded, each, OWN)) for each in (OwnRule(OWN), Aimd(OWN), CurveScorer(OWN))]
    assert found[2] > max(found[:2])


def test_with_room_to_spare_the_scorer_loses_nothing() -> None:
    light = scene(switching(0.1 * capacity(CURVE), 0.3 * capacity(CURVE), 0.1, 1.0, seed=2), slo_us=40_000)
    assert goodput_share(play(light, CurveScorer(OWN), OWN)) == goodput_share(play(light, OwnRule(OWN), OWN)) == 1


def test_who_simulates_made_up_futures_is_better_than_the_own_rule_and_not_than_who_knows_the_real_one() -> None:
    rate = capacity(CURVE)
    some = scene(stepwise([1.3 * rate, 0.2 * rate, 1.3 * rate], 0.4, seed=3))
    tried = [OWN, ServingSetting(6_000.0, 8), ServingSetting(18_000.0, 16)]
    found = goodput_share(simulating(some, OWN, tried, look_us=100_000, ahead_us=400_000))
    best = goodput_share(oracle(some, OWN, tried, look_us=100_000, ahead_us=400_000))
    assert goodput_share(play(some, OwnRule(OWN), OWN)) < found <= best + 0.01


def test_the_oracle_is_at_least_as_good_as_each_of_its_settings() -> None:
    rate = capacity(CURVE)
    some = scene(stepwise([1.3 * rate, 0.2 * rate], 0.2, seed=3))
    tried = [OWN, ServingSetting(6_000.0, 8)]
    best = goodput_share(oracle(some, OWN, tried, look_us=100_000, ahead_us=400_000))
    assert best >= max(goodput_share(play(some, OwnRule(each), each, guarded=False)) for each in tried) - 0.01
