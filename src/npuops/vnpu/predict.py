"""Latency and energy of a model on a chip, layer by layer, from its profile. Pure.

What runs on the NPU is priced by `npuops.vnpu.perf`; what falls back to the host is priced by a middling host core and
two trips over the link for each stretch of such layers. The layers, the fixed cost and the transfer add up to the
whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import numpy as np

from npuops.errors import OptionError, nearest
from npuops.models.placement import Placement, RunsOn
from npuops.units import Basis, Energy, Latency
from npuops.vnpu.perf import ACTIVATION_BYTES, RATES, Floats, Table
from npuops.vnpu.prior import COMMON_RATIOS, nominal_logs, ratios_of
from npuops.vnpu.profile import Profile, geometry_of
from npuops.vnpu.work import Work, Workload
from npuops.vnpu.work_kinds import Kind

HOST_US_PER_MMAC: Final = 0.1
"""A host core at 10 int8 GMAC/s; nobody publishes fallback kernels, so this is a guess (Cortex-A76 class)."""
HOST_US_PER_MELEMENT: Final = 1000.0
"""The same core, 1 ns an element; a guess."""
HOST_CALL_US: Final = 50.0
"""Waking the other side, for each stretch that falls back; a guess."""

UNFITTED: Final = (0.4, 2.5)
"""80 % interval of chips of which nobody fitted a row: the spread of protocol (c), docs/predictor.md."""

_AT: Final = {name: index for index, name in enumerate(RATES)}
_PARTS: Final = ("compute", "weights", "local", "spill")


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
    workload: Workload, profile: Profile, placed: Sequence[Placement], number_format: str = "int8"
) -> Estimate:
    """Predict one inference.

    Args:
        workload: of the model.
        profile: the chip.
        placed: where each layer runs, in the order of the workload's layers.
        number_format: of the chip's formats.

    Raises:
        OptionError: the chip does not run that format.
    """
    if number_format not in profile.formats:
        raise OptionError(
            f"{profile.name} does not run {number_format}", advice=nearest(number_format, profile.formats)
        )
    on_npu = [place.runs_on is RunsOn.NPU for place in placed]
    log_rates = log_rates_of(profile)
    costs = _npu_costs(workload, on_npu, profile, log_rates, number_format)
    layers = tuple(
        costs[index] if here else _host_cost(layer)
        for index, (layer, here) in enumerate(zip(workload.layers, on_npu, strict=True))
    )
    host_rate = float(np.exp(log_rates[_AT["memory.host"]]))
    crossing = workload.input_elements + workload.output_elements + _islands(workload.layers, on_npu)
    transfer_us = crossing * ACTIVATION_BYTES[number_format] / 1e6 * host_rate
    stretches = sum(not here for here, _ in groupby(on_npu))
    fixed_us = float(np.exp(log_rates[_AT["overhead.inference"]])) + stretches * HOST_CALL_US
    us = sum(layer.us for layer in layers) + fixed_us + transfer_us
    low, high = (profile.effective.interval.low, profile.effective.interval.high) if profile.effective else UNFITTED
    return Estimate(
        us=us,
        low_us=us * low,
        high_us=us * high,
        fixed_us=fixed_us,
        transfer_us=transfer_us,
        layers=layers,
        format=number_format,
        source=_source(profile),
    )


def energy_of(found: Estimate, profile: Profile) -> Energy:
    """Datasheet power x modelled time: an upper bound where the chip is not busy all the time."""
    watts = profile.power.busy_w.value
    return Energy(
        mj=found.us * watts / 1e3, basis=Basis.MODELLED, source=f"datasheet power, {watts:g} W, x modelled time"
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


def _npu_costs(
    workload: Workload, on_npu: Sequence[bool], profile: Profile, log_rates: Floats, number_format: str
) -> dict[int, LayerCost]:
    """Index of each layer on the NPU → its cost."""
    where = [index for index, here in enumerate(on_npu) if here]
    part = replace(workload, layers=tuple(workload.layers[index] for index in where))
    table = Table([(part, number_format)], geometry_of(profile))
    spent = iter(zip(table.layer_us(log_rates), table.parts_us(log_rates).T, strict=True))
    launch_us = float(np.exp(log_rates[_AT["overhead.layer"]]))
    costs = {}
    for index in where:
        layer = workload.layers[index]
        if not table.costs(layer):
            costs[index] = _cost(layer, RunsOn.NPU, 0.0, "folded")
            continue
        us, parts = next(spent)
        bound = "launch" if us < 2 * launch_us else _PARTS[int(np.argmax(parts))]
        costs[index] = _cost(layer, RunsOn.NPU, float(us), bound)
    return costs


def _host_cost(layer: Work) -> LayerCost:
    elements = sum(count for count, _ in layer.tensors)
    us = layer.macs / 1e6 * HOST_US_PER_MMAC + elements / 1e6 * HOST_US_PER_MELEMENT
    return _cost(layer, RunsOn.CPU, us, "host")


def _cost(layer: Work, runs_on: RunsOn, us: float, bound: str) -> LayerCost:
    return LayerCost(name=layer.name, op=layer.op, kind=layer.kind, runs_on=runs_on, us=us, bound=bound)


def _islands(layers: Sequence[Work], on_npu: Sequence[bool]) -> int:
    """Elements that cross the link: what the first layer of a stretch on the host reads and its last one writes."""
    crossing = 0
    stretches = groupby(zip(layers, on_npu, strict=True), key=lambda pair: pair[1])
    for here, stretch in stretches:
        if not here:
            members = [layer for layer, _ in stretch]
            crossing += sum(count for count, _ in members[0].tensors[:-1])
            crossing += sum(count for count, _ in members[-1].tensors[-1:])
    return crossing


def _source(profile: Profile) -> str:
    if profile.effective is None:
        return f"profile {profile.name}: data sheet and what published chips have in common; nobody measured this one"
    return f"profile {profile.name}: {profile.effective.source}"
