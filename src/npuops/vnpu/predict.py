"""Latency and energy of a model on a chip, layer by layer, from its profile. Pure.

What runs on the NPU is priced by `npuops.vnpu.perf`; what falls back, by a slow host core and a call for each stretch.
The layers, the fixed cost and the transfer add up to the whole. The interval is the profile's for the NPU's part and
`HOST_SPREAD` for the host's; its lower end lets everything run on the NPU, because a layer falls back already where its
chip's published list merely does not name it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import numpy as np

from npuops.errors import OptionError, nearest
from npuops.models.model import Layer, Model
from npuops.models.placement import Placement, RunsOn
from npuops.units import Basis, Energy, Latency
from npuops.vnpu.crossing import NO_BORDER, Border, border_of
from npuops.vnpu.perf import ACTIVATION_BYTES, RATES, Floats, Table
from npuops.vnpu.prior import COMMON_RATIOS, nominal_logs, ratios_of
from npuops.vnpu.profile import Profile, geometry_of
from npuops.vnpu.work import Fold, Work, Workload
from npuops.vnpu.work_kinds import Kind

HOST_US_PER_MMAC: Final = 124.0
"""MobileNetV2 (300.8 million MACs) takes 37.21 ms on the Cortex-A55 cores of an i.MX 95, eIQ 1.16, published beside its
NPU's row: the only published fallback. One core of the development machine needs 13 idle, 31 loaded (float32, ONNX
Runtime). What such layers read and write is in it."""
HOST_US_PER_MELEMENT: Final = 1000.0
"""Of elements read and written by layers without MACs: 0.04 to 0.19 ns each on that core (15 operators; Pow 1.5 ns),
ten times that on the Cortex-A55 by the ratio of the above."""
HOST_CALL_US: Final = 50.0
"""Waking the other side, for each stretch of layers with work that falls back; a guess."""
HOST_SPREAD: Final = 10.0
"""Hosts are up to so many times faster or slower: from one x86 core to a Cortex-M55."""

UNFITTED: Final = (0.4, 2.5)
"""80 % interval of chips of which nobody fitted a row: the spread of protocol (c), docs/predictor.md."""

_AT: Final = {name: index for index, name in enumerate(RATES)}
_PARTS: Final = ("compute", "weights", "local", "spill", "launch")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """One layer's share of an inference."""

    name: str
    op: str
    kind: Kind
    runs_on: RunsOn
    us: float
    bound: str
    """What takes the time: `compute`, `weights`, `local` or `spill` (memory), `launch`, `host`; `folded`: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An inference: `us` is the sum over the layers, plus `fixed_us`, plus `transfer_us`."""

    us: float
    low_us: float
    high_us: float
    fixed_us: float
    transfer_us: float
    layers: tuple[LayerCost, ...]
    format: str
    source: str

    @property
    def latency(self) -> Latency:
        """As a support report has it."""
        return Latency(us=self.us, low_us=self.low_us, high_us=self.high_us, basis=Basis.MODELLED, source=self.source)


def estimate(
    workload: Workload,
    profile: Profile,
    placed: Sequence[Placement],
    number_format: str = "int8",
    *,
    border: Border = NO_BORDER,
) -> Estimate:
    """Predict one inference.

    Args:
        workload: of the model.
        profile: the chip.
        placed: where each layer runs, in the order of the workload's layers.
        number_format: of the chip's formats.
        border: between host and NPU (`npuops.vnpu.crossing.border_of`).

    Raises:
        OptionError: the chip does not run that format.
    """
    if number_format not in profile.formats:
        raise OptionError(
            f"{profile.name} does not run {number_format}", advice=nearest(number_format, profile.formats)
        )
    log_rates = log_rates_of(profile)
    on_npu = _npu_costs(npu_part(workload, placed, border), profile, log_rates, number_format)
    layers = tuple(
        next(on_npu) if place.runs_on is RunsOn.NPU else _host_cost(layer)
        for layer, place in zip(workload.layers, placed, strict=True)
    )
    transfer_us = _transfer_us(workload, border.handed_elements, profile, log_rates) * ACTIVATION_BYTES[number_format]
    fixed_us = float(np.exp(log_rates[_AT["overhead.inference"]])) + _calls_us(workload, placed)
    us = sum(layer.us for layer in layers) + fixed_us + transfer_us
    host_us = host_part_us(workload, placed)
    low_us, high_us = _interval(profile, us - host_us, host_us)
    if host_us:
        everywhere = [replace(place, runs_on=RunsOn.NPU) for place in placed]
        low_us = min(low_us, estimate(workload, profile, everywhere, number_format).low_us)
    return Estimate(
        us=us,
        low_us=low_us,
        high_us=high_us,
        fixed_us=fixed_us,
        transfer_us=transfer_us,
        layers=layers,
        format=number_format,
        source=_source(profile, number_format),
    )


def estimate_model(
    model: Model, workload: Workload, profile: Profile, placed: Sequence[Placement], number_format: str
) -> Estimate:
    """`estimate`, with the border that the placement draws through the model.

    Raises:
        OptionError: the chip does not run that format.
    """
    return estimate(workload, profile, placed, number_format, border=border_of(model, placed))


def npu_part(workload: Workload, placed: Sequence[Placement], border: Border) -> Workload:
    """What the NPU does of an inference, as a workload of its own: its layers, and all that crosses the link."""
    layers = tuple(
        replace(layer, fold=Fold.NO) if index in border.unfolded else layer
        for index, (layer, place) in enumerate(zip(workload.layers, placed, strict=True))
        if place.runs_on is RunsOn.NPU
    )
    return replace(workload, layers=layers, input_elements=workload.input_elements + border.handed_elements)


def host_part_us(workload: Workload, placed: Sequence[Placement]) -> float:
    """What the host needs of an inference: its layers, and a call for each stretch of them."""
    pairs = zip(workload.layers, placed, strict=True)
    layers_us = sum(_host_cost(layer).us for layer, place in pairs if place.runs_on is RunsOn.CPU)
    return layers_us + _calls_us(workload, placed)


def unpriced(model: Model, placed: Sequence[Placement]) -> tuple[str, ...]:
    """Layers whose work is unknown and cannot be left out: with them there is no honest latency.

    Those are layers on the NPU with a tensor of unknown size, and everywhere layers whose multiplications are unknown.
    """
    return tuple(
        layer.name
        for layer, place in zip(model.layers, placed, strict=True)
        if layer.macs is None or (place.runs_on is RunsOn.NPU and not _is_sized(layer))
    )


def uncounted(model: Model) -> tuple[str, ...]:
    """Layers with a tensor of unknown size: what passes through them costs nothing here."""
    return tuple(layer.name for layer in model.layers if not _is_sized(layer))


def energy_of(found: Estimate, profile: Profile) -> Energy:
    """Datasheet power x modelled time, of one inference alone on the chip (as `npuops.vnpu.power` has it).

    An upper bound where the chip waits for the host or for its memory; what the host draws is not in it.
    """
    power, cores = profile.power, profile.compute.cores.value
    watts = power.idle_w.value + (power.busy_w.value - power.idle_w.value) / cores
    busy = "" if cores == 1 else f" with 1 of {cores} cores busy"
    waits = any(layer.runs_on is RunsOn.CPU and layer.us for layer in found.layers)
    host = ", as if busy while it waits for the host; the host's own is not in it" if waits else ""
    return Energy(
        mj=found.us * watts / 1e3,
        basis=Basis.MODELLED,
        source=f"datasheet power of the NPU, {watts:.3g} W{busy}, x modelled time{host}",
    )


def log_rates_of(profile: Profile) -> Floats:
    """The fitted rates; what was not fitted follows from the data sheet and the common ratios."""
    logs = nominal_of(profile) + ratios_of(COMMON_RATIOS)
    for name, rate in (profile.effective.rates if profile.effective else {}).items():
        logs[_AT[name]] = np.log(rate)
    return logs


def nominal_of(profile: Profile) -> Floats:
    """Logarithms of the rates of a chip that did its nominal best."""
    rates = {name: rate.value for name, rate in profile.compute.format_rate.items()}
    return nominal_logs(profile.nominal_us_per_mmac, profile.memory.dram_gbps.value, rates)


def _npu_costs(part: Workload, profile: Profile, log_rates: Floats, number_format: str) -> Iterator[LayerCost]:
    """The cost of each layer on the NPU."""
    table = Table([(part, number_format)], geometry_of(profile))
    spent = iter(zip(table.layer_us(log_rates), table.parts_us(log_rates).T, strict=True))
    for layer in part.layers:
        if table.costs(layer):
            us, parts = next(spent)
            yield _cost(layer, RunsOn.NPU, float(us), _PARTS[int(np.argmax(parts))])
        else:
            yield _cost(layer, RunsOn.NPU, 0.0, "folded")


def _calls_us(workload: Workload, placed: Sequence[Placement]) -> float:
    pairs = zip(workload.layers, placed, strict=True)
    sides = (place.runs_on for layer, place in pairs if layer.kind is not Kind.FREE)
    return HOST_CALL_US * sum(side is RunsOn.CPU for side, _ in groupby(sides))


def _host_cost(layer: Work) -> LayerCost:
    elements = 0 if layer.kind is Kind.FREE else sum(count for count, _ in layer.tensors)
    us = layer.macs / 1e6 * HOST_US_PER_MMAC if layer.macs else elements / 1e6 * HOST_US_PER_MELEMENT
    return _cost(layer, RunsOn.CPU, us, "host")


def _cost(layer: Work, runs_on: RunsOn, us: float, bound: str) -> LayerCost:
    return LayerCost(name=layer.name, op=layer.op, kind=layer.kind, runs_on=runs_on, us=us, bound=bound)


def _transfer_us(workload: Workload, handed: int, profile: Profile, log_rates: Floats) -> float:
    """For activations of one byte. What is handed over inside goes through the DRAM at best."""
    rate = float(np.exp(log_rates[_AT["memory.host"]]))
    outside = workload.input_elements + workload.output_elements
    return (outside * rate + handed * max(rate, 1e3 / profile.memory.dram_gbps.value)) / 1e6


def _interval(profile: Profile, npu_us: float, host_us: float) -> tuple[float, float]:
    low, high = (profile.effective.interval.low, profile.effective.interval.high) if profile.effective else UNFITTED
    return npu_us * low + host_us / HOST_SPREAD, npu_us * high + host_us * HOST_SPREAD


def _is_sized(layer: Layer) -> bool:
    return all(tensor.elements is not None for tensor in (*layer.inputs, *layer.outputs))


def _source(profile: Profile, number_format: str) -> str:
    fit = profile.effective
    rates = (
        "data sheet and what published chips have in common; nobody measured this one" if fit is None else fit.source
    )
    return f"in {number_format}, profile {profile.name}: {rates}"
