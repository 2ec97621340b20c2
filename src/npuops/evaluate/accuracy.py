"""One number for how good a model's answers are: top-1, cosine, or a metric of the user's. Higher is better."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.evidence import Accuracy
from npuops.errors import DataError, OptionError, nearest
from npuops.evaluate.entry_point import is_entry_point, load_function
from npuops.evaluate.metrics import cosine, top1_agreement

Outputs = Mapping[str, NDArray[Any]]
"""Output name → array whose first axis is the sample, as `run_reference` gives them."""

BUILT_IN = ("cosine", "top1")


@dataclass(frozen=True, slots=True)
class Metric:
    """A name and what it computes."""

    name: str
    score: Callable[[Outputs, Outputs, NDArray[np.int64] | None], float]
    """(outputs, outputs of the fp32 model, labels) → score."""


def find_metric(name: str) -> Metric:
    """`top1`, `cosine`, or `package.module:function`, called as `function(outputs, labels) -> float`.

    - `top1`: share of samples whose first output has its largest value at the label; without labels, at the same
      class as the fp32 model.
    - `cosine`: mean cosine with the fp32 model, the lowest over the float outputs.

    Raises:
        OptionError: no such metric, or the function cannot be imported.
    """
    if name == "top1":
        return Metric(name, _top1)
    if name == "cosine":
        return Metric(name, _cosine)
    if not is_entry_point(name):
        raise OptionError(
            f"no metric {name!r}", advice=f"{nearest(name, BUILT_IN)}; or package.module:function(outputs, labels)"
        )
    function = load_function(name)
    return Metric(name, lambda outputs, _, labels: _custom(name, function, outputs, labels))


def metric_identity(name: str) -> str:
    """What decides a metric's value besides the outputs: its name, and for a user's one the code of its module.

    Raises:
        OptionError: as `find_metric`.
    """
    if not is_entry_point(name):
        return name
    module = inspect.getmodule(load_function(name))
    file = getattr(module, "__file__", None)
    code = Path(file).read_bytes() if file else b""
    return f"{name} sha256:{hashlib.sha256(code).hexdigest()}"


def measure_accuracy(metric: Metric, *, artifact: Outputs, fp32: Outputs, labels: NDArray[np.int64] | None) -> Accuracy:
    """The metric of both on the same samples.

    Raises:
        DataError: the metric cannot be computed from these outputs.
    """
    count = len(next(iter(fp32.values())))
    if labels is not None and len(labels) != count:
        raise DataError(f"{len(labels)} labels for {count} samples")
    return Accuracy(
        metric=metric.name,
        fp32=metric.score(fp32, fp32, labels),
        artifact=metric.score(artifact, fp32, labels),
        samples=count,
    )


def _top1(outputs: Outputs, fp32: Outputs, labels: NDArray[np.int64] | None) -> float:
    name = next(iter(fp32))
    got = _finite(name, outputs)
    agreement = top1_agreement(got, fp32[name])
    if agreement is None:
        raise DataError(
            f"top1 needs one vector of classes per sample, output {name!r} is {list(got.shape[1:])}",
            advice="use the metric cosine, or one of your own",
        )
    if labels is None:
        return agreement
    classes = got[0].size
    if labels.min() < 0 or labels.max() >= classes:
        # Such a label is never hit: both models would score 0, and nothing would seem lost.
        raise DataError(
            f"labels go from {labels.min()} to {labels.max()}, output {name!r} has {classes} classes",
            advice="a label is a place in that output, counted from 0",
        )
    return float(np.mean(got.reshape(len(got), -1).argmax(axis=1) == labels))


def _cosine(outputs: Outputs, fp32: Outputs, labels: NDArray[np.int64] | None) -> float:
    del labels
    names = [name for name in fp32 if fp32[name].dtype.kind == "f"]
    if not names:
        raise DataError("cosine needs a float output", advice="use a metric of your own")
    # A vector that collapsed to zero has no direction: as far from right as an orthogonal one.
    return min(found if (found := cosine(_finite(name, outputs), fp32[name])) is not None else 0.0 for name in names)


def _finite(name: str, outputs: Outputs) -> NDArray[Any]:
    if name not in outputs:
        raise DataError(f"no output {name!r}", advice=nearest(name, outputs))
    if not np.isfinite(outputs[name]).all():
        raise DataError(f"output {name!r} holds NaN or infinity: there is no accuracy to measure")
    return outputs[name]


def _custom(name: str, function: Callable[..., Any], outputs: Outputs, labels: NDArray[np.int64] | None) -> float:
    try:
        score = float(function(dict(outputs), labels))
    except Exception as error:
        raise DataError(f"metric {name} failed: {type(error).__name__}: {error}") from error
    if not np.isfinite(score):
        raise DataError(f"metric {name} answered {score}")
    return score
