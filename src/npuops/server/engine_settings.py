"""A model's options in the engine's words."""

from __future__ import annotations

from collections.abc import Sequence

from npuops.build.fallback import read_fallback_policy
from npuops.errors import OptionError
from npuops.runtime.admission import Limits
from npuops.runtime.buckets import AxisPadding, Crop, check_padding
from npuops.runtime.engine_options import EngineOptions
from npuops.runtime.signature import Port, Signature
from npuops.server.model_options import ModelOptions, PaddingOptions


def engine_options(options: ModelOptions, signature: Signature) -> EngineOptions:
    """A model's options in the engine's words.

    Raises:
        OptionError: padding names a tensor, or an axis, that the model does not have.
    """
    return EngineOptions(
        batching=options.batching.enabled == "auto",
        budget_us=options.batching.budget_ms * 1000,
        limits=Limits(max_queue_requests=options.queue.max_requests, max_queue_bytes=options.queue.max_bytes),
        max_request_bytes=options.max_request_bytes,
        run_limit_s=options.run_limit_s,
        open_limit_s=options.open_limit_s,
        patience_s=options.patience_s,
        inline=options.inline,
        fallback=read_fallback_policy(options.fallback),
        shard=options.shard,
        padding=_padding(options.padding, signature),
    )


def _padding(options: PaddingOptions, signature: Signature) -> AxisPadding:
    inputs = [port.name for port in signature.inputs]
    outputs = [port.name for port in signature.outputs]
    for name in options.values:
        _must_be(name, inputs, "padding.values")
    crops = tuple(
        Crop(
            output=_must_be(crop.output, outputs, "padding.crop.output"),
            axis=crop.axis,
            input=_must_be(crop.input, inputs, "padding.crop.input"),
            input_axis=crop.input_axis,
        )
        for crop in options.crop
    )
    padding = AxisPadding(values=tuple(options.values.get(name) for name in inputs), crops=crops)
    check_padding(padding, _ranks(signature.inputs), _ranks(signature.outputs))
    return padding


def _ranks(ports: Sequence[Port]) -> list[int | None]:
    return [None if port.shape is None else len(port.shape) for port in ports]


def _must_be(name: str, known: Sequence[str], where: str) -> int:
    if name not in known:
        raise OptionError(f"{where} names {name!r}", advice=f"the model has {', '.join(known)}")
    return list(known).index(name)
