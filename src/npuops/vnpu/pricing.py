"""The program of a model on a virtual chip: every layer with its price, as the machine runs it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from npuops.models.model import Model
from npuops.models.placement import Placement
from npuops.vnpu.memory_plan import plan_memory
from npuops.vnpu.perf import ACTIVATION_BYTES, WEIGHT_BYTES
from npuops.vnpu.predict import LayerCost, estimate_model
from npuops.vnpu.profile import Profile
from npuops.vnpu.program import Program, Step
from npuops.vnpu.work import Work, workload_of

INFERENCE: Final = "inference"
"""The step that stands for the cost of an inference besides its layers."""


def program_of(model: Model, profile: Profile, placed: Sequence[Placement], number_format: str) -> Program:
    """Steps that add up to `estimate` at the top clock.

    Raises:
        OptionError: the chip does not run that format.
    """
    workload = workload_of(model)
    found = estimate_model(model, workload, profile, placed, number_format)
    plan = plan_memory(model, workload, placed, profile, number_format)
    streamed = plan.streamed_bytes / plan.weights_bytes if plan.weights_bytes else 0.0
    weight_bytes, activation_bytes = WEIGHT_BYTES[number_format], ACTIVATION_BYTES[number_format]
    first = Step(name=INFERENCE, op=INFERENCE, compute_us=0.0, memory_us=found.transfer_us, overhead_us=found.fixed_us)
    priced = [
        _step(layer, cost, round(layer.weight_elements * weight_bytes * streamed))
        for layer, cost in zip(workload.layers, found.layers, strict=True)
        if cost.us > 0
    ]
    return Program(
        steps=(first, *priced),
        weights_bytes=plan.weights_bytes,
        activation_bytes=plan.peak_bytes or 0,
        input_bytes=workload.input_elements * activation_bytes,
        output_bytes=workload.output_elements * activation_bytes,
        ops=frozenset({INFERENCE, *(layer.op for layer in workload.layers)}),
    )


def _step(layer: Work, cost: LayerCost, dram_bytes: int) -> Step:
    """What bounds a layer decides whether the clock stretches it."""
    computes = cost.bound == "compute"
    waits = cost.bound in {"launch", "host"}
    return Step(
        name=layer.name,
        op=layer.op,
        compute_us=cost.us if computes else 0.0,
        memory_us=0.0 if computes or waits else cost.us,
        overhead_us=cost.us if waits else 0.0,
        dram_bytes=dram_bytes,
        macs=layer.macs,
    )
