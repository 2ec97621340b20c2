"""Evaluation samples in two parts: one that a search may look at, one held back to confirm what it found.

The best of a hundred mixes on one set is a little better there than elsewhere (MiniLM: 0.9901 on the set that was
searched, 0.9896 on other sentences). Samples that took no part in the choice show the real drop, and their spread
says how far the drop on yet other samples may lie from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from os import sched_getaffinity

import numpy as np
import onnx

from npuops.evaluate.accuracy import Metric, Outputs
from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import Samples, make_samples

SMALLEST_PART = 8
"""With fewer samples in a half, nothing is held back: either half would be too small to judge by."""
GROUPS = 8
"""Of samples, for the jackknife: enough to see a spread, few enough for a metric that takes its time."""
MOST_WORKERS = 4


def split(samples: Samples) -> tuple[Samples, Samples]:
    """The part to search on and the part held back, sample by sample in turn; twice the whole set if it is small."""
    if len(samples) < 2 * SMALLEST_PART:
        return samples, samples
    return pick(samples, range(0, len(samples), 2)), pick(samples, range(1, len(samples), 2))


def pick(samples: Samples, rows: Sequence[int]) -> Samples:
    """Some of the samples, with their labels."""
    labels = None if samples.labels is None else samples.labels[list(rows)]
    return make_samples([samples.inputs[row] for row in rows], labels=labels, source=samples.source)


def answers(model: onnx.ModelProto, samples: Samples) -> Outputs:
    """As `run_reference`, several samples at a time: each inference has one thread, so the values are the same.

    Raises:
        RunError: as `run_reference`.
    """
    workers = min(len(sched_getaffinity(0)), MOST_WORKERS, len(samples))
    if workers == 1:
        return run_reference(model, samples)
    bounds = np.linspace(0, len(samples), workers + 1).astype(int)
    parts = [pick(samples, range(low, high)) for low, high in pairwise(bounds)]
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(lambda part: run_reference(model, part), parts))
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def standard_error(metric: Metric, outputs: Outputs, fp32: Outputs, samples: Samples) -> float:
    """Of the metric on these samples, by the jackknife over groups of them (Efron 1979): any metric will do.

    Zero when there is one sample.
    """
    count = len(samples)
    groups = min(GROUPS, count)
    if groups < 2:
        return 0.0
    scores = []
    for group in range(groups):
        rest = np.arange(count) % groups != group
        labels = None if samples.labels is None else samples.labels[rest]
        scores.append(metric.score(_rows(outputs, rest), _rows(fp32, rest), labels))
    return float(np.sqrt((groups - 1) * np.var(scores)))


def _rows(outputs: Outputs, rows: np.typing.NDArray[np.bool_]) -> Outputs:
    return {name: array[rows] for name, array in outputs.items()}
