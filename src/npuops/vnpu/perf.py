"""How long a chip needs for a layer: the same law for every chip, with rates that differ. Pure.

For one layer, in microseconds::

    compute  = padded MACs x rate of its kind           (MAC array; sizes rounded up to the array's)
             or elements x rate of its kind             (vector unit)
    weights  = bytes of weights x weight rate           (streamed from DRAM at every inference)
    local    = bytes of activations x rate              (read into, and written by, the MAC array)
    spill    = bytes beyond the on-chip memory x rate   (activations that do not stay on the chip)
    launch   = the same for every layer
    layer    = |compute, weights + spill, local, launch|_4

Weights and spilled activations share the way to the DRAM; the four work at the same time, and the 4-norm is a smooth
maximum of them. An inference is the sum of its layers, plus a fixed cost, plus the transfer of inputs and outputs.
A number format multiplies the compute rates, and of wider numbers the array adds up fewer at once. The shape follows
the roofline with array-shape rounding and per-layer overhead that ANNETTE and nn-Meter found necessary
(facts/performance-models.md sections 4 and 5); the rates are fitted to published latencies (`npuops.vnpu.fit`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.vnpu.work import Fold, Work, Workload
from npuops.vnpu.work_kinds import MAC_KINDS, Kind

Floats = NDArray[np.float64]

FORMATS: Final = ("int8", "fp16", "w8a16", "fp32")
"""Number formats of activations; weights of `w8a16` are int8."""

ACTIVATION_BYTES: Final[Mapping[str, int]] = {"int8": 1, "fp16": 2, "w8a16": 2, "fp32": 4}
WEIGHT_BYTES: Final[Mapping[str, int]] = {"int8": 1, "fp16": 2, "w8a16": 1, "fp32": 4}

MAC_RATES: Final = tuple(f"mac.{kind}" for kind in Kind if kind in MAC_KINDS)
"""Microseconds per million padded MACs at int8."""
VECTOR_KINDS: Final = (Kind.ELEMENTWISE, Kind.POOL, Kind.LOOKUP, Kind.NORM, Kind.MOVE, Kind.RESIZE)
VECTOR_RATES: Final = tuple(f"vector.{kind}" for kind in VECTOR_KINDS)
"""Microseconds per million elements read and written at int8."""
MEMORY_RATES: Final = ("memory.weights", "memory.local", "memory.spill", "memory.host")
"""Microseconds per million bytes."""
OVERHEADS: Final = ("overhead.layer", "overhead.inference")
"""Microseconds per layer and per inference."""
FORMAT_FACTORS: Final = tuple(f"{unit}.{name}" for unit in ("mac", "vector") for name in FORMATS[1:])
"""Times slower than int8."""
RATES: Final = (*MAC_RATES, *VECTOR_RATES, *MEMORY_RATES, *OVERHEADS, *FORMAT_FACTORS)
"""Every parameter of a chip, in the order of a rate vector."""

_AT: Final = {name: index for index, name in enumerate(RATES)}
_PARTS: Final = ("memory.weights", "memory.local", "memory.spill", "overhead.layer")
"""The rates of the parts of a layer besides its computation."""
_BUS: Final = ((0,), (1, 3), (2,), (4,))
"""Which parts wait for each other, as indices of `parts_us`; the others overlap."""
_NORM: Final = 4.0
_TINY: Final = 1e-30


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """What of a chip's shape the law needs; nominal, never fitted."""

    rows: int = 1
    """Output positions that the array computes at once."""
    columns: int = 32
    """Output channels that it computes at once."""
    depth: int = 32
    """Input channels that it adds up at once, at one byte each."""
    lanes: int = 1
    """Channels that are stored together: a tensor with fewer takes as much memory and time."""
    sram_bytes: int = 1 << 20
    """On-chip memory for the activations and weights of one layer."""
    weight_cache_bytes: int = 0
    """On-chip memory in which weights stay from one inference to the next."""
    folds: frozenset[Fold] = frozenset({Fold.ALL})
    """What the chip's compiler folds away."""

    def folding(self, folds: frozenset[Fold]) -> Geometry:
        """The same shape behind another compiler."""
        return replace(self, folds=folds)


class Table:
    """The layers of several inferences in columns, ready for any rates of chips with one geometry."""

    def __init__(self, cases: Sequence[tuple[Workload, str]], geometry: Geometry) -> None:
        """Lay out the cases.

        Args:
            cases: a workload and its number format (one of FORMATS).
            geometry: of the chip.
        """
        self._geometry = geometry
        layers = [[layer for layer in workload.layers if self.costs(layer)] for workload, _ in cases]
        counts = [len(found) for found in layers]
        self._start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._case = np.repeat(np.arange(len(cases)), counts)
        flat = [layer for found in layers for layer in found]
        formats = np.repeat(np.array([FORMATS.index(name) for _, name in cases], dtype=np.int64), counts)
        self._rate = np.array([_AT[_rate_name(layer)] for layer in flat], dtype=np.int64)
        on_array = np.array([layer.kind in MAC_KINDS and layer.macs > 0 for layer in flat], dtype=bool)
        self._factor = np.where(formats > 0, _AT[FORMAT_FACTORS[0]] + formats - 1 + np.where(on_array, 0, 3), -1)
        widths = np.repeat([ACTIVATION_BYTES[name] for _, name in cases], counts)
        amounts = [_amount(layer, geometry, int(width)) for layer, width in zip(flat, widths, strict=True)]
        self._amount = np.array(amounts, dtype=np.float64) / 1e6
        self._moved = (*_traffic(cases, layers, geometry), np.ones(len(flat)))
        self._host = np.array(
            [
                (workload.input_elements + workload.output_elements) * ACTIVATION_BYTES[name] / 1e6
                for workload, name in cases
            ]
        )

    def costs(self, layer: Work) -> bool:
        """Whether the layer has a pass of its own on this chip, and so a place in `layer_us`."""
        return layer.kind is not Kind.FREE and layer.fold not in self._geometry.folds

    def layer_us(self, log_rates: Floats) -> Floats:
        """Microseconds of every layer of every case, in order; float64[layers]."""
        return self._parts(np.exp(log_rates))[0]

    def parts_us(self, log_rates: Floats) -> Floats:
        """Compute, weights, local, spill and launch of every layer, before they overlap; float64[5, layers]."""
        return self._parts(np.exp(log_rates))[1]

    def case_us(self, log_rates: Floats) -> Floats:
        """Microseconds of every case; float64[cases]."""
        rates = np.exp(log_rates)
        return self._total(self._parts(rates)[0], rates)

    def gradient(self, log_rates: Floats) -> tuple[Floats, Floats]:
        """Microseconds of every case, and their derivatives by the logarithms of the rates; float64[cases, RATES]."""
        rates = np.exp(log_rates)
        layer_us, parts = self._parts(rates)
        slopes = np.zeros((len(self._host), len(RATES)))
        shares = np.zeros_like(parts)
        for bus in _BUS:
            # d|x|_p / dlog(x_i) = |x|_p (x_i/|x|_p)^p, of which each part on a bus has its share
            together = parts[list(bus)].sum(axis=0)
            slope = layer_us * np.power(together / layer_us, _NORM)
            for part in bus:
                shares[part] = slope * parts[part] / together
        np.add.at(slopes, (self._case, self._rate), shares[0])
        has_factor = self._factor >= 0
        np.add.at(slopes, (self._case[has_factor], self._factor[has_factor]), shares[0][has_factor])
        for name, share in zip(_PARTS, shares[1:], strict=True):
            np.add.at(slopes[:, _AT[name]], self._case, share)
        slopes[:, _AT["overhead.inference"]] = rates[_AT["overhead.inference"]]
        slopes[:, _AT["memory.host"]] = self._host * rates[_AT["memory.host"]]
        return self._total(layer_us, rates), slopes

    def used(self, log_rates: Floats) -> NDArray[np.bool_]:
        """Which rates matter to any case by more than a hundredth; bool[RATES]."""
        us, slopes = self.gradient(log_rates)
        return np.asarray((slopes > 0.01 * us[:, None]).any(axis=0))

    def _parts(self, rates: Floats) -> tuple[Floats, Floats]:
        """Layer times, and their five parts."""
        factor = np.where(self._factor >= 0, rates[self._factor], 1.0)
        moved = [amount * rates[_AT[name]] for name, amount in zip(_PARTS, self._moved, strict=True)]
        parts = np.maximum(np.stack([self._amount * rates[self._rate] * factor, *moved]), _TINY)
        buses = np.stack([parts[list(bus)].sum(axis=0) for bus in _BUS])
        peaks = buses.max(axis=0)
        smooth = peaks * np.power(np.power(buses / peaks, _NORM).sum(axis=0), 1 / _NORM)
        return np.asarray(smooth), parts

    def _total(self, layer_us: Floats, rates: Floats) -> Floats:
        sums = np.bincount(self._case, weights=layer_us, minlength=len(self._host))
        return np.asarray(sums + rates[_AT["overhead.inference"]] + self._host * rates[_AT["memory.host"]])


def _rate_name(layer: Work) -> str:
    if layer.kind in MAC_KINDS and layer.macs:
        return f"mac.{layer.kind}"
    return f"vector.{layer.kind}" if layer.kind in VECTOR_KINDS else "vector.norm"


def _amount(layer: Work, geometry: Geometry, width: int) -> float:
    """MACs with the sizes rounded up to the array's, or elements of `width` bytes that pass the vector unit."""
    if layer.kind not in MAC_KINDS or not layer.macs:
        return _stored(layer, geometry)
    if layer.kind is Kind.DEPTHWISE:
        return _up(layer.groups, geometry.columns) * layer.rows * layer.depth
    window = layer.depth / layer.channels
    array = _up(layer.rows, geometry.rows) * _up(layer.columns, geometry.columns)
    return layer.groups * array * window * _up(layer.channels, max(1, geometry.depth // width))


def _stored(layer: Work, geometry: Geometry) -> float:
    """Elements of the activations as the device stores them."""
    return sum(count / channels * _up(channels, geometry.lanes) for count, channels in layer.tensors)


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


def _traffic(
    cases: Sequence[tuple[Workload, str]], layers: Sequence[Sequence[Work]], geometry: Geometry
) -> tuple[Floats, Floats, Floats]:
    """Megabytes of weights, of an array's activations, and of activations that do not fit on the chip, per layer."""
    weights: list[float] = []
    local: list[float] = []
    spill: list[float] = []
    for (_, name), found in zip(cases, layers, strict=True):
        whole = sum(layer.weight_elements for layer in found) * WEIGHT_BYTES[name]
        streamed = max(0.0, 1 - geometry.weight_cache_bytes / whole) if whole else 0.0
        for layer in found:
            held = layer.weight_elements * WEIGHT_BYTES[name]
            moved = _stored(layer, geometry) * ACTIVATION_BYTES[name]
            beyond = max(0.0, 1 - geometry.sram_bytes / (held + moved)) if held + moved else 0.0
            weights.append(held * streamed / 1e6)
            local.append(moved / 1e6 if layer.kind in MAC_KINDS else 0.0)
            spill.append(moved * beyond / 1e6)
    return np.array(weights), np.array(local), np.array(spill)
