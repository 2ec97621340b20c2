"""Calibration: what each activation of the float graph does on the samples, and the range that quantizes it best.

`observe_activations` streams the samples once (twice where a histogram is wanted) and keeps per tensor a
minimum, a maximum and a histogram, never the activations themselves: memory is bounded by one sample.
`choose_range` then picks a clip range for a number of levels, so that 8- and 16-bit trials share one calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from npuops.errors import DataError, RunError
from npuops.evaluate.samples import Samples
from npuops.events import Observer, StepProgressed, ignore

BINS = 2048
ENTROPY_CLIP = 0.001
"""Largest share of values that entropy may clip: where Relu piles values up at zero, the divergence alone would
cut nearly everything else away (MobileNetV2 fell to chance)."""
CHUNK_BYTES = 256 * 2**20
"""Most bytes of activations that are fetched from ONNX Runtime at once."""

Range = tuple[float, float]


class Method(StrEnum):
    """How a clip range is chosen from what calibration saw."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """What calibration saw of one tensor."""

    low: float
    high: float
    histogram: NDArray[np.int64] | None = None
    """Counts in `BINS` equal bins from `low` to `high`; None for min-max calibration, or a constant tensor."""
    zeros: int = 0
    """How many of the counted values are exactly 0: quantization keeps those."""


Activations = Mapping[str, Activation]


def float_activations(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of all float32 tensors that are computed or fed, in graph order; shapes must have been inferred."""
    constants = {tensor.name for tensor in model.graph.initializer}
    typed = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    floats = {value.name for value in typed if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    fed = [value.name for value in model.graph.input]
    computed = [name for node in model.graph.node if node.op_type != "Constant" for name in node.output]
    return tuple(dict.fromkeys(name for name in (*fed, *computed) if name in floats and name not in constants))


def observe_activations(
    tap: ActivationTap, samples: Samples, *, histograms: bool, observe: Observer = ignore
) -> dict[str, Activation]:
    """Run the float graph on every sample and keep what each activation did.

    Args:
        tap: of the float graph, with the tensors wanted.
        samples: calibration inputs.
        histograms: also count values in bins; a second pass over the samples.
        observe: gets `StepProgressed("calibrate", …)`, one per sample and pass.

    Raises:
        DataError: no sample, or an activation became NaN or infinite.
        RunError: ONNX Runtime refuses an input.
    """
    if not samples.inputs:
        raise DataError(f"{samples.source}: no calibration sample")
    names = tap.names
    total = len(samples) * (2 if histograms else 1)
    lows = dict.fromkeys(names, np.inf)
    highs = dict.fromkeys(names, -np.inf)
    for index, sample in enumerate(samples.inputs):
        for name, array in tap.run(sample):
            low, high = float(array.min(initial=np.inf)), float(array.max(initial=-np.inf))
            if not (np.isfinite(low) and np.isfinite(high)) and array.size:
                raise DataError(
                    f"sample {index} of {samples.source} drives the float tensor {name!r} to NaN or infinity",
                    advice="check the sample and the pre-processing; no range can be calibrated from it",
                )
            lows[name], highs[name] = min(lows[name], low), max(highs[name], high)
        observe(StepProgressed(step="calibrate", done=index + 1, total=total))
    ranges = {name: (lows[name], highs[name]) for name in names if lows[name] <= highs[name]}
    seen = {name: Activation(low=low, high=high) for name, (low, high) in ranges.items()}
    return seen | (_count(tap, samples, ranges, total, observe) if histograms else {})


class ActivationTap:
    """A session of the float graph whose inner tensors come out, a bounded part at a time."""

    def __init__(self, model: onnx.ModelProto, names: tuple[str, ...]) -> None:
        """Open a session.

        Args:
            model: float graph with inferred shapes, at most 2 GiB.
            names: tensors that are computed or fed.

        Raises:
            RunError: ONNX Runtime refuses the graph.
        """
        self.names = names
        fed = {value.name for value in model.graph.input}
        self._fed = tuple(name for name in names if name in fed)
        inner = [name for name in names if name not in fed]
        self._chunks = _chunks(model, inner)
        tapped = onnx.ModelProto()
        tapped.CopyFrom(model)
        present = {value.name for value in tapped.graph.output}
        tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner if name not in present)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # Every inner tensor is an output: fusions are impossible anyway, and trying them costs seconds.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = ort.InferenceSession(
                tapped.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:
            raise RunError(f"ONNX Runtime cannot load the float graph for calibration: {error}") from error

    def run(
        self, sample: Mapping[str, NDArray[Any]], only: Container[str] | None = None
    ) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Name and array of every tensor, or of those in `only`, for one sample."""
        for name in self._fed:
            if only is None or name in only:
                yield name, np.asarray(sample[name])
        for whole in self._chunks:
            chunk = [name for name in whole if only is None or name in only]
            if not chunk:
                continue
            try:
                arrays = self._session.run(chunk, dict(sample))
            except Exception as error:
                raise RunError(f"ONNX Runtime refused a calibration input: {error}") from error
            yield from zip(chunk, arrays, strict=True)


def _chunks(model: onnx.ModelProto, names: list[str]) -> list[list[str]]:
    """Split so that a chunk's tensors stay below CHUNK_BYTES (unknown sizes count as a tenth of it)."""
    sizes = {value.name: _bytes(value) for value in [*model.graph.value_info, *model.graph.output]}
    chunks: list[list[str]] = []
    room = 0
    for name in names:
        size = sizes.get(name) or CHUNK_BYTES // 10
        if not chunks or size > room:
            chunks.append([])
            room = CHUNK_BYTES
        chunks[-1].append(name)
        room -= size
    return chunks


def _bytes(value: onnx.ValueInfoProto) -> int:
    size = 4
    for dim in value.type.tensor_type.shape.dim:
        size *= dim.dim_value
    return size


def _count(
    tap: ActivationTap, samples: Samples, ranges: Mapping[str, Range], total: int, observe: Observer
) -> dict[str, Activation]:
    counts = {name: np.zeros(BINS, np.int64) for name, clip in ranges.items() if _can_be_divided(clip)}
    zeros = dict.fromkeys(counts, 0)
    for index, sample in enumerate(samples.inputs):
        for name, array in tap.run(sample):
            if name in counts:
                low, high = ranges[name]
                # np.histogram checks for NaN and sorts edges; equal bins need only a multiplication.
                place = ((array.ravel() - np.float32(low)) * np.float32(BINS / (high - low))).astype(np.int64)
                counts[name] += np.bincount(np.clip(place, 0, BINS - 1), minlength=BINS)
                zeros[name] += array.size - int(np.count_nonzero(array))
        observe(StepProgressed(step="calibrate", done=len(samples) + index + 1, total=total))
    return {
        name: Activation(low=ranges[name][0], high=ranges[name][1], histogram=found, zeros=zeros[name])
        for name, found in counts.items()
    }


def _can_be_divided(clip: Range) -> bool:
    """Whether bins of this range have a width that float32 can tell from zero and from infinity."""
    width = clip[1] - clip[0]
    return 1e-30 < width < float(np.finfo(np.float32).max)


def choose_range(seen: Activation, method: Method, *, levels: int, percentile: float = 99.99) -> Range:
    """The clip range of one tensor for `levels` quantization steps; always within what was seen.

    Without a histogram (min-max calibration, a constant tensor) it is the whole range.
    """
    if method is Method.MINMAX or seen.histogram is None:
        return seen.low, seen.high
    if method is Method.PERCENTILE:
        return _percentile(seen, percentile)
    noise = _squared_error if method is Method.MSE else _divergence
    return _search(seen, levels, noise)


def _percentile(seen: Activation, percentile: float) -> Range:
    assert seen.histogram is not None  # noqa: S101 - the caller looked
    share = np.cumsum(seen.histogram) / seen.histogram.sum()
    tail = (100.0 - percentile) / 200.0
    step = (seen.high - seen.low) / BINS
    first = int(np.searchsorted(share, tail))
    last = int(np.searchsorted(share, 1.0 - tail))
    return seen.low + first * step, min(seen.high, seen.low + (last + 1) * step)


def _search(seen: Activation, levels: int, score: Callable[[Activation, int, int, int], float]) -> Range:
    """Shrink one end after the other to the bin border of the lowest score, in steps of 16 bins: two rounds."""
    first, last = 0, BINS
    zero = int(np.clip(-seen.low / (seen.high - seen.low) * BINS, 0, BINS))
    for _ in range(2):
        lows = [(at, last) for at in (0, *range(16, min(zero, last - 2), 16))]
        first, _ = min(lows, key=lambda clip: score(seen, clip[0], clip[1], levels))
        highs = [(first, at) for at in (BINS, *range(BINS - 16, max(zero, first + 2), -16))]
        _, last = min(highs, key=lambda clip: score(seen, clip[0], clip[1], levels))
    step = (seen.high - seen.low) / BINS
    return seen.low + first * step, seen.low + last * step


def _squared_error(seen: Activation, first: int, last: int, levels: int) -> float:
    """Squared error when bins outside [first, last) saturate and those inside round: step²/12, but zeros stay zero.

    The step is that of the range once it is widened to hold zero, as the quantizer does.
    """
    assert seen.histogram is not None  # noqa: S101 - the caller looked
    width = (seen.high - seen.low) / BINS
    counts = seen.histogram
    step = (max(seen.low + last * width, 0.0) - min(seen.low + first * width, 0.0)) / (levels - 1)
    inside = max(0, counts[first:last].sum() - seen.zeros) * step**2 / 12
    below = (counts[:first] * ((np.arange(first, 0, -1) - 0.5) * width) ** 2).sum()
    above = (counts[last:] * ((np.arange(BINS - last) + 0.5) * width) ** 2).sum()
    return float(inside + below + above)


def _divergence(seen: Activation, first: int, last: int, levels: int) -> float:
    """Kullback-Leibler divergence of the saturated distribution from its copy merged into `levels` groups."""
    assert seen.histogram is not None  # noqa: S101 - the caller looked
    kept = seen.histogram[first:last].astype(np.float64)
    total = seen.histogram.sum()
    if total - kept.sum() > ENTROPY_CLIP * total:
        return np.inf
    wanted = kept.copy()
    wanted[0] += seen.histogram[:first].sum()
    wanted[-1] += seen.histogram[last:].sum()
    group = np.arange(last - first) * min(levels, last - first) // (last - first)
    filled = np.maximum(np.bincount(group, weights=kept > 0), 1)
    merged = (np.bincount(group, weights=kept) / filled)[group] * (kept > 0)
    p = (wanted + 1e-6) / (wanted + 1e-6).sum()
    q = (merged + 1e-6) / (merged + 1e-6).sum()
    return float(np.sum(p * np.log(p / q)))
