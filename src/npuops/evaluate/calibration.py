"""Is this set of samples good enough to calibrate with? Warnings in words, before time is spent."""

from __future__ import annotations

import hashlib

import numpy as np

from npuops.evaluate.samples import Samples

FEW = 8
"""Below it, one unusual sample decides the ranges."""
RANGE_FACTOR = 20.0
"""Ranges that differ by more than this between two sets come from different pre-processing (0..255 against -1..1)."""


def judge_calibration(samples: Samples, evaluation: Samples | None = None) -> tuple[str, ...]:
    """What is wrong with the calibration set, one sentence each; empty when nothing is.

    Args:
        samples: the calibration set.
        evaluation: when given, its value ranges and its samples are compared too.
    """
    if not samples.inputs:
        return (f"{samples.source} holds no sample",)
    found = []
    if len(samples) < FEW:
        found.append(f"only {len(samples)} calibration samples: use at least {FEW}, better 32 to 128")
    digests = [_digest(samples, index) for index in range(len(samples))]
    distinct = len(set(digests))
    if distinct == 1 and len(samples) > 1:
        found.append(f"all {len(samples)} calibration samples are equal: the ranges will fit one input only")
    elif distinct < len(samples):
        found.append(f"{len(samples) - distinct} of {len(samples)} calibration samples are duplicates")
    found.extend(_constant_inputs(samples))
    if evaluation is not None and evaluation.inputs:
        found.extend(_range_gaps(samples, evaluation))
        shared = len(set(digests) & {_digest(evaluation, index) for index in range(len(evaluation))})
        if shared:
            found.append(f"{shared} samples are in calibration and in evaluation: the accuracy will look too good")
    return tuple(found)


def _digest(samples: Samples, index: int) -> bytes:
    digest = hashlib.sha256()
    for name, array in sorted(samples.inputs[index].items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _constant_inputs(samples: Samples) -> list[str]:
    found = []
    for name, (low, high) in _ranges(samples).items():
        if low == high:
            found.append(f"input {name!r} is {low:g} everywhere in the calibration set: its range is not known")
    return found


def _range_gaps(samples: Samples, evaluation: Samples) -> list[str]:
    found = []
    seen = _ranges(evaluation)
    for name, (low, high) in _ranges(samples).items():
        if name not in seen or samples.inputs[0][name].dtype.kind != "f":
            continue
        other_low, other_high = seen[name]
        here, there = max(abs(low), abs(high)), max(abs(other_low), abs(other_high))
        if min(here, there) > 0 and max(here, there) / min(here, there) > RANGE_FACTOR:
            found.append(
                f"input {name!r} spans {low:g}..{high:g} in calibration but {other_low:g}..{other_high:g} in"
                " evaluation: the two were scaled differently"
            )
    return found


def _ranges(samples: Samples) -> dict[str, tuple[float, float]]:
    ranges: dict[str, tuple[float, float]] = {}
    for sample in samples.inputs:
        for name, array in sample.items():
            if array.size:
                low, high = ranges.get(name, (np.inf, -np.inf))
                ranges[name] = (min(low, float(array.min())), max(high, float(array.max())))
    return ranges
