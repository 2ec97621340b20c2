"""How good the decisions of a scorer are: not its loss, but what came of the candidate that it would have taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError
from npuops.hostsched.objective import WEIGHTS, Weights, worth
from npuops.hostsched.scorer import MOST_PROGRESS, sigmoid
from npuops.hostsched.scorer_network import Weights as Scoring
from npuops.hostsched.scorer_network import forward
from npuops.schedlab.samples import Samples

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What a scorer expects of samples, as `scorer.outlook` means it.

    Attributes:
        miss: (S, K, slots), 0 to 1.
        progress: (S, K, slots).
        waits: (S, slots), probabilities.
        switches: (S, K), log2 relative to candidate 0.
    """

    miss: NDArray[np.float32]
    progress: NDArray[np.float32]
    waits: NDArray[np.float32]
    switches: NDArray[np.float32]


def expect(weights: Scoring, samples: Samples) -> Expected:
    """What the network says of samples, in float32 by NumPy."""
    found = []
    for row in range(len(samples)):
        given = (samples.tasks[row], samples.history[row], samples.host[row], samples.levels[row].astype(np.intp))
        found.append(forward(weights, *given, np.ones(samples.tasks.shape[1], np.float32)))
    faces, waits, switches = (np.stack(column) for column in zip(*found, strict=True))
    return expected(faces, waits, switches)


def expected(faces: NDArray[Any], waits: NDArray[Any], switches: NDArray[Any]) -> Expected:
    """The network's numbers as people mean them; every array has a leading axis of states."""
    return Expected(
        miss=sigmoid(faces[..., 0]),
        progress=np.clip(faces[..., 1], 0.0, MOST_PROGRESS),
        waits=sigmoid(waits),
        switches=switches,
    )


def truth(samples: Samples, weights: Weights = WEIGHTS) -> Floats:
    """Worth of each candidate as it came out, without what changing costs: (S, K)."""
    progress = np.where(samples.progress_weight > 0, samples.progress, np.inf).min(axis=2)
    return _worth(_mean(samples.miss, samples.miss_weight), progress, weights)


def judged(samples: Samples, expected: Expected, weights: Weights = WEIGHTS, *, told: bool = True) -> Floats:
    """Worth of each candidate as the scorer sees it: (S, K).

    Args:
        samples: what it looked at.
        expected: its answer.
        weights: of the objective.
        told: applications say who is waited for; without, the scorer's own guess counts.
    """
    here = samples.tasks[:, :, 0]
    waits = np.where(samples.waits_weight > 0, samples.waits, expected.waits) if told else expected.waits
    waiting = np.broadcast_to((waits * here)[:, None, :], expected.miss.shape)
    others = np.broadcast_to(((waits < 0.5) & (here > 0))[:, None, :], expected.miss.shape)
    progress = np.where(others, expected.progress, np.inf).min(axis=2)
    return _worth(_mean(expected.miss, waiting, least=1.0), progress, weights)


def _mean(values: NDArray[np.float32], weights: NDArray[np.float32], least: float = 1e-12) -> Floats:
    """Over the slots; weights of less than `least` together count as so much, and no weight gives 0."""
    total = np.maximum(weights.sum(axis=2, dtype=np.float64), least)
    found: Floats = (values * weights).sum(axis=2, dtype=np.float64) / total
    return found


def _worth(miss: Floats, progress: Floats, weights: Weights) -> Floats:
    slowest: Floats = np.where(np.isinf(progress), 1.0, progress)
    return worth(miss, slowest, np.zeros_like(miss), weights)


def quality(real: Floats, seen: Floats) -> Mapping[str, float]:
    """What came of choosing by `seen` where `real` is what happens; both (S, K), candidate 0 the default.

    Returns:
        regret: mean worth lost against the best candidate.
        regret_default: the same for always taking the default.
        captured: share of the best candidate's gain over the default that was had; 1 is perfect, 0 the default.
        harmed: share of states in which the choice was worse than the default by more than 0.01.
        agreement: share of states in which the choice was as good as the best, within 0.001.

    Raises:
        DataError: the shapes differ.
    """
    if real.shape != seen.shape or real.ndim != 2:
        raise DataError(f"worths of shapes {real.shape} and {seen.shape} cannot be compared")
    chosen = np.take_along_axis(real, seen.argmax(axis=1)[:, None], axis=1)[:, 0]
    best, default = real.max(axis=1), real[:, 0]
    room = float((best - default).mean())
    return {
        "regret": float((best - chosen).mean()),
        "regret_default": room,
        "captured": float((chosen - default).mean()) / room if room > 0 else 1.0,
        "harmed": float((chosen < default - 0.01).mean()),
        "agreement": float((chosen >= best - 0.001).mean()),
    }


def same_choice(one: Floats, other: Floats, real: Floats, tolerance: float = 0.005) -> Mapping[str, float]:
    """Whether two forms of one scorer (float32 and INT8) decide alike.

    Args:
        one: worths as the first form sees them, (S, K).
        other: as the second does.
        real: as they came out.
        tolerance: choices whose real worths differ by less are alike.

    Returns:
        identical: share of states with the very same candidate.
        alike: share of states in which it is as good in fact.
        lost: mean real worth that the second form loses against the first.
    """
    first, second = one.argmax(axis=1), other.argmax(axis=1)
    rows = np.arange(len(real))
    gap = real[rows, first] - real[rows, second]
    return {
        "identical": float((first == second).mean()),
        "alike": float((np.abs(gap) <= tolerance).mean()),
        "lost": float(gap.mean()),
    }
