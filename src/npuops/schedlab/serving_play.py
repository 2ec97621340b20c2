"""A policy at the simulated server: looks, decisions and guard as in the real one; and the loads it is tried on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from npuops.hostsched.serving_guard import ServingGuard
from npuops.hostsched.serving_policies import FOLLOW, ServingPolicy
from npuops.hostsched.serving_state import ServingSetting
from npuops.runtime.batch_curve import BatchCurve
from npuops.schedlab.serving_simulator import ServingScene, SimulatedServer

LOOK_US: Final = 100_000
AFTER_US: Final = 1_000_000
"""What is late by then is late anyway."""

SHAPES: Final = {
    "light": (0.3, 0.4, 0.3, 0.4),
    "steps": (0.3, 0.9, 1.3, 0.6, 1.1, 0.2),
    "bursts": (0.2, 1.8, 0.2, 0.2, 1.8, 0.2),
}
"""Load in turn, of all that the device can do."""


def affine(first_us: float, row_us: float, most: int) -> BatchCurve:
    """A device that takes so long for a run, and so long for each of its rows."""
    sizes = [1 << power for power in range(most.bit_length())]
    return BatchCurve(tuple((rows, first_us + row_us * rows) for rows in sizes))


def capacity(curve: BatchCurve) -> float:
    """Rows a second in the largest batch that was measured."""
    rows = max(rows for rows, _ in curve.points)
    return rows / curve.us(rows) * 1e6


def stepwise(rates: Sequence[float], seconds: float, seed: int) -> list[int]:
    """Poisson arrivals in µs, each rate for so long."""
    random = np.random.default_rng(seed)
    parts = [
        np.sort(random.uniform(turn * seconds, (turn + 1) * seconds, random.poisson(rate * seconds)))
        for turn, rate in enumerate(rates)
    ]
    found: list[int] = (np.concatenate(parts) * 1e6).astype(np.int64).tolist()
    return found


def switching(low: float, high: float, stay_s: float, seconds: float, seed: int) -> list[int]:
    """Arrivals in µs of a Poisson process that switches between two rates (MMPP-2), staying `stay_s` on average."""
    random = np.random.default_rng([seed, 2])
    found: list[float] = []
    at, rate = 0.0, low
    while at < seconds:
        stay = min(float(random.exponential(stay_s)), seconds - at)
        found += np.sort(random.uniform(at, at + stay, random.poisson(rate * stay))).tolist()
        at, rate = at + stay, high if rate == low else low
    return [int(each * 1e6) for each in found]


def noise(seed: int, spread: float = 0.05) -> list[float]:
    """Factors on runs: log-normal."""
    found: list[float] = np.exp(np.random.default_rng([seed, 1]).normal(0, spread, 997)).tolist()
    return found


def play(
    scene: ServingScene, policy: ServingPolicy, own: ServingSetting, *, guarded: bool = True, whole: bool = False
) -> SimulatedServer:
    """The scene to its end under a policy.

    Args:
        scene: what happens.
        policy: decides each `LOOK_US`.
        own: setting of the server's own rule; bounds and way back of the guard.
        guarded: the guard stands before the server, as in the real one.
        whole: as `SimulatedServer.whole`.
    """
    server = SimulatedServer(scene, own, whole=whole)
    guard = ServingGuard(own)
    end_us = (scene.arrivals_us[-1] if scene.arrivals_us else 0) + AFTER_US
    while server.now_us < end_us:
        frame = server.frame()
        expected = policy.expected
        wanted = policy.decide(frame)
        server.setting = guard.allow(frame, wanted, expected) if guarded else wanted
        server.run_until(server.now_us + LOOK_US)
    return server


def oracle(
    scene: ServingScene, own: ServingSetting, settings: Sequence[ServingSetting], *, look_us: int, ahead_us: int
) -> SimulatedServer:
    """Who tries every setting on the real future, and takes the one with most answers in time. An upper bound, almost.

    Args:
        scene: what happens.
        own: setting at the beginning.
        settings: that are tried.
        look_us: between two decisions.
        ahead_us: of the future that is tried.
    """
    return _trying(scene, own, settings, lambda _server: [None], look_us, ahead_us)


def simulating(
    scene: ServingScene,
    own: ServingSetting,
    settings: Sequence[ServingSetting],
    *,
    look_us: int,
    ahead_us: int,
    futures: int = 3,
) -> SimulatedServer:
    """Who tries every setting in made-up futures: Poisson arrivals at the rate of now.

    It knows the server's whole state and its rules, and not what comes: about the most that a forecast could be worth.

    Args:
        scene: what happens.
        own: setting at the beginning.
        settings: that are tried.
        look_us: between two decisions.
        ahead_us: of the futures.
        futures: that are tried at each decision, the same for all settings.
    """
    random, rate = np.random.default_rng(0), 0.0

    def made_up(server: SimulatedServer) -> list[list[int]]:
        nonlocal rate
        now_rate = server.frame().rate
        rate += FOLLOW * (now_rate - rate)
        found = []
        for _ in range(futures):
            count = random.poisson(max(rate, now_rate) * ahead_us / 1e6)
            moments = np.sort(random.uniform(server.now_us, server.now_us + ahead_us, count))
            found.append(moments.astype(np.int64).tolist())
        return found

    return _trying(scene, own, settings, made_up, look_us, ahead_us)


def _trying(
    scene: ServingScene,
    own: ServingSetting,
    settings: Sequence[ServingSetting],
    futures: Callable[[SimulatedServer], Sequence[Sequence[int] | None]],
    look_us: int,
    ahead_us: int,
) -> SimulatedServer:
    """The setting with most answers in time over the futures, as `SimulatedServer.fork` takes them, at each look."""
    server = SimulatedServer(scene, own)
    end_us = (scene.arrivals_us[-1] if scene.arrivals_us else 0) + AFTER_US
    while server.now_us < end_us:
        worths = dict.fromkeys(settings, 0)
        for to_come in futures(server):
            for setting in settings:
                future = server.fork(to_come)
                future.setting = setting
                future.run_until(server.now_us + ahead_us)
                worths[setting] += answered_in_time(future)
        server.setting = max(settings, key=worths.__getitem__)
        server.run_until(server.now_us + look_us)
    return server


def answered_in_time(server: SimulatedServer) -> int:
    """Requests with an answer within the SLO."""
    return sum(0 <= each <= server.scene.slo_us for each in server.latency_us)


def goodput_share(server: SimulatedServer) -> float:
    """Of all requests that came, those answered in time; 1 where none came."""
    return answered_in_time(server) / len(server.latency_us) if server.latency_us else 1.0


def p99_us(server: SimulatedServer) -> float | None:
    """Of the requests that were answered; None where none was."""
    answered = [each for each in server.latency_us if each >= 0]
    return float(np.percentile(answered, 99)) if answered else None
