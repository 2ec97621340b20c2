"""Where the weights and the activations of a model live on a chip, and whether they fit there. Pure.

Activations stay in the on-chip pool, where the chip has one, and go to DRAM beyond it. Weights come from flash or DRAM
at every inference, but for those that stay in the on-chip cache. What is computed is a lower bound, so that a chip is
said to hold a model only where it holds `WEIGHT_SLACK` and `1 / POOL_SHARE` times as much. docs/memory.md compares it
with published allocations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from npuops.models.model import Layer, Model, TensorInfo
from npuops.models.onnx_tensors import bytes_of
from npuops.models.placement import Placement, RunsOn
from npuops.targets.report import Fit, MemoryUse
from npuops.units import format_bytes
from npuops.vnpu.liveness import live_activations
from npuops.vnpu.perf import WEIGHT_BYTES
from npuops.vnpu.profile import Profile, geometry_of
from npuops.vnpu.work import Workload
from npuops.vnpu.work_kinds import Kind

POOL_SHARE: Final = 0.75
"""Of the pool, what live activations can fill before a compiler puts one outside: STM32N6 spills EfficientNetV2-B2 at
260, which fills 80 % of it. The rest is lost between buffers and banks."""
CACHE_SHARE: Final = 0.88
"""Of what activations leave of a pool, what weights of the file's size can fill: the Edge TPU's compiler pads them and
caches tensors whole (Inception V1 leaves 182 KiB outside, MobileNet V2 nothing)."""
WEIGHT_SLACK: Final = 1.15
"""Weights as stored by as counted: at most 1.12 in the 25 published rows of STM32N6."""

CHIP: Final = "chip memory"
DRAM: Final = "DRAM"
FLASH: Final = "flash"

_FLOATS: Final = frozenset({"float32", "float64", "float16", "bfloat16"})
_WIDE_BYTES: Final = 4
"""Biases, scales and normalization constants stay in 32 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes of one model on one chip.

    Attributes:
        weights_bytes: as stored.
        cached_bytes: of them, what stays on the chip from one inference to the next.
        peak_bytes: of live activations; None where a size is unknown.
        pooled_bytes: of them, what stays on the chip.
        unknown: tensors of unknown size on the host, which are not counted.
    """

    weights_bytes: int
    cached_bytes: int
    peak_bytes: int | None
    pooled_bytes: int
    unknown: tuple[str, ...] = ()

    @property
    def streamed_bytes(self) -> int:
        """Weights that come from outside at every inference."""
        return self.weights_bytes - self.cached_bytes

    @property
    def spilled_bytes(self) -> int:
        """Activations outside of the chip."""
        return (self.peak_bytes or 0) - self.pooled_bytes


def plan_memory(
    model: Model, workload: Workload, placed: Sequence[Placement], profile: Profile, number_format: str
) -> MemoryPlan:
    """Where everything of an inference would live.

    Args:
        model: from a file.
        workload: of the model.
        placed: where each layer runs, in order.
        profile: the chip.
        number_format: of its formats.
    """
    memory = profile.memory
    on_npu = [place.runs_on is RunsOn.NPU for place in placed]
    live = live_activations(model, workload.layers, on_npu, geometry_of(profile).folds, number_format)
    peak = live.peak_bytes or 0
    pool = memory.pool_bytes
    weights = _weights(model, workload, profile, number_format)
    room = memory.weight_cache_bytes
    if pool:
        room = min(room, int(max(0, pool - peak) * CACHE_SHARE))
    return MemoryPlan(
        weights_bytes=weights,
        cached_bytes=min(weights, room),
        peak_bytes=live.peak_bytes,
        pooled_bytes=min(peak, int(pool * POOL_SHARE)),
        unknown=live.unknown,
    )


def fit_of(plan: MemoryPlan, profile: Profile) -> Fit:
    """Whether the memories hold the plan, and what each of them would hold."""
    memory = profile.memory
    dram, flash = memory.dram_bytes, memory.flash_bytes
    short = list(_short(plan, dram, flash))
    uses = (
        MemoryUse(what="weights", where=CHIP, bytes=plan.cached_bytes, limit_bytes=memory.weight_cache_bytes),
        MemoryUse(what="weights", where=FLASH if flash else DRAM, bytes=plan.streamed_bytes, limit_bytes=flash or dram),
        MemoryUse(what="activations", where=CHIP, bytes=plan.pooled_bytes, limit_bytes=memory.pool_bytes),
        MemoryUse(what="activations", where=DRAM, bytes=plan.spilled_bytes, limit_bytes=dram),
    )
    return Fit(
        ok=not short,
        weights_bytes=plan.weights_bytes,
        peak_activation_bytes=plan.peak_bytes,
        limit_bytes=dram + flash,
        note="; ".join(short) or _left_out(plan),
        uses=tuple(use for use in uses if use.bytes),
    )


def _short(plan: MemoryPlan, dram: int, flash: int) -> Iterator[str]:
    """What is missing, in words."""
    stored, spilled = plan.weights_bytes * WEIGHT_SLACK, plan.spilled_bytes / POOL_SHARE
    wanted = {DRAM: (spilled if flash else spilled + stored, dram), FLASH: (stored if flash else 0, flash)}
    for name, (need, limit) in wanted.items():
        if need > limit:
            yield f"{name} would have to hold about {format_bytes(int(need))}, and has {format_bytes(limit)}"
    if plan.peak_bytes is None:
        yield "the sizes of activations on the NPU are unknown: fix the inputs with --shape"


def _left_out(plan: MemoryPlan) -> str:
    return f"not counted: tensors of unknown size on the host ({len(plan.unknown)})" if plan.unknown else ""


def _weights(model: Model, workload: Workload, profile: Profile, number_format: str) -> int:
    """Bytes of every constant that a layer uses, each once, as the chip stores them."""
    filter_bytes = 1.0 if profile.memory.depthwise_bytes is None else profile.memory.depthwise_bytes.value
    seen: set[str] = set()
    total = 0.0
    for layer, work in zip(model.layers, workload.layers, strict=True):
        for tensor in _fresh(layer, seen):
            size = _stored(tensor, number_format)
            is_filter = work.kind is Kind.DEPTHWISE and len(tensor.shape or ()) > 1
            total += size * filter_bytes if is_filter else size
    return int(total)


def _fresh(layer: Layer, seen: set[str]) -> Sequence[TensorInfo]:
    """The constants that no layer before uses."""
    found = [tensor for tensor in layer.weights if tensor.name not in seen]
    seen.update(tensor.name for tensor in found)
    return found


def _stored(tensor: TensorInfo, number_format: str) -> int:
    elements = tensor.elements or 0
    if tensor.dtype not in _FLOATS:
        return bytes_of(tensor.dtype, elements)
    return elements * (WEIGHT_BYTES[number_format] if len(tensor.shape or ()) > 1 else _WIDE_BYTES)
