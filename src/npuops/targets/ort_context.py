"""Ahead-of-time compilation by a plugin provider: one EPContext file, whole or in parts, and which nodes it took.

`ModelCompiler` optimizes nothing by default, so that its output differs from the session's on some graphs
(seen with DTLN-2 on the HTP): both get the same level here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from npuops.errors import CompileError, MissingToolchainError, OptionError, ToolchainError, UnsupportedModelError
from npuops.models.model import Model, ModelFormat
from npuops.models.placement import RunsOn
from npuops.targets.child import call
from npuops.targets.ort_engine import (
    Engine,
    first_lines,
    graph_bytes,
    is_pristine,
    open_session,
    placement_of,
    runtime,
    session_options,
)
from npuops.targets.protocol import Compilation, CompileOptions, Traits

ENTRY: Final = "compiled.onnx"
"""Always this name: compilers write the file's stem into their output, so another name gives another digest."""

LARGEST_BYTES: Final = 2 * 1024**3 - 64 * 1024**2
"""A graph in one protobuf message stays below 2 GiB."""

NESTED_LIMIT_S: Final = 600.0
"""Bounds a child of a child; the caller's own limit is usually shorter."""

_NOT_WHOLE: Final = "fallback to CPU EP has been explicitly disabled"


def compile_context(
    engine: Engine,
    model: Path,
    folder: Path,
    *,
    tracing: Mapping[str, str] | None = None,
    explain: Callable[[], Mapping[str, str]] = dict,
) -> Compilation:
    """Compile ahead of time into one EPContext file: as a whole if possible, else in parts, and say which.

    Args:
        engine: a plugin engine.
        model: an ONNX file with static shapes.
        folder: where `ENTRY` is written.
        tracing: further provider options while the placement is found, so that `explain` can read a trace.
        explain: node name → why the vendor does not take it; called once, after the placement is known.

    Raises:
        CompileError: the vendor's compiler failed, or takes no node.
    """
    tracer = dataclasses.replace(engine, provider_options={**engine.provider_options, **(tracing or {})})
    session, whole = _whole_or_parts(tracer, model)
    placement = placement_of(engine, session, explain())
    del session  # its memory is the vendor's: give it back before the compiler takes as much again
    on_npu = sum(node.runs_on is RunsOn.NPU for node in placement)
    if not on_npu:
        raise CompileError(
            f"{engine.ep_name} takes no node of {model.name} for {engine.target}",
            advice="npuops check names the rule that each node breaks",
        )
    written = _write_context(engine, model, folder / ENTRY, whole=whole)
    return Compilation(
        entry=ENTRY,
        files=(ENTRY,),
        placement=placement,
        compatibility=written.get(f"ep_compatibility_info.{engine.ep_name}", ""),
        notes={
            "whole_graph_on_npu": "yes" if whole else "no",
            "nodes_on_npu": str(on_npu),
            "nodes_on_cpu": str(len(placement) - on_npu),
        },
    )


def in_fresh_process(function: Callable[..., Compilation], arguments: Mapping[str, Any], *, what: str) -> Compilation:
    """Call `function(**arguments)` where no plugin compiled anything yet: here, or in a child of its own.

    The vendor numbers tensors and subgraphs over the life of the process, and the numbers end up in the file:
    only a fresh process gives the same bytes for the same model.

    Raises:
        NpuopsError: whatever the function raises.
    """
    if is_pristine():
        return function(**arguments)
    compilation: Compilation = call(function, arguments, what=what, timeout_s=NESTED_LIMIT_S).value
    return compilation


def check_format(target: str, model: Model) -> None:
    """ONNX is the only format of these toolchains.

    Raises:
        UnsupportedModelError: another format.
    """
    if model.format is not ModelFormat.ONNX:
        raise UnsupportedModelError(f"{target} takes ONNX, not {model.format}", advice="export the model to ONNX")


def check_compile_call(target: str, model: Model, options: CompileOptions, traits: Traits) -> None:
    """What every compile here demands of its arguments.

    Raises:
        UnsupportedModelError: not ONNX, too large for one file, shapes that are not fixed, or not quantized
            although the precision says so.
        OptionError: a precision that the target does not have.
    """
    check_format(target, model)
    if model.weight_bytes > LARGEST_BYTES:
        raise UnsupportedModelError(
            f"{model.path.name} has {model.weight_bytes} bytes of weights; one ONNX message holds less than 2 GiB",
            advice="quantize it, or split it",
        )
    if options.precision not in traits.precisions:
        known = ", ".join(traits.precisions)
        raise OptionError(f"{target} cannot do {options.precision}", advice=f"it can do {known}")
    if traits.static_shapes and not model.is_static:
        loose = ", ".join(tensor.name for tensor in model.inputs if not tensor.is_static)
        raise UnsupportedModelError(
            f"{target} needs fixed shapes; dynamic: {loose}", advice="fix them with --shape NAME=1x3x224x224"
        )
    if options.precision.is_quantized and not model.is_quantized:
        raise UnsupportedModelError(
            f"{options.precision} needs a quantized graph, and {model.path.name} has no quantizers",
            advice="npuops build quantizes with --calibration; or choose a float precision",
        )


def _whole_or_parts(engine: Engine, model: Path) -> tuple[Any, bool]:
    try:
        return open_session(engine, model, whole=True, nameless=True), True
    except MissingToolchainError:
        raise
    except ToolchainError as error:
        if _NOT_WHOLE not in error.message:
            raise CompileError(error.message, advice="npuops check names what the target does not take") from error
    try:
        return open_session(engine, model, whole=False, nameless=True), False
    except ToolchainError as error:
        raise CompileError(error.message, advice="npuops check names what the target does not take") from error


def _write_context(engine: Engine, model: Path, entry: Path, *, whole: bool) -> dict[str, str]:
    ort = runtime()
    options, graph = session_options(engine, whole=whole), graph_bytes(model)
    try:
        compiler = ort.ModelCompiler(
            options,
            graph,
            embed_compiled_data_into_model=True,
            flags=ort.OrtCompileApiFlags.ERROR_IF_NO_NODES_COMPILED,
            graph_optimization_level=getattr(ort.GraphOptimizationLevel, engine.level),
        )
        compiler.compile_to_file(str(entry))
    except Exception as error:
        raise CompileError(f"{engine.target}: {first_lines(error)}", advice="see the vendor's words") from error
    # Loading it back proves that it loads, and gives the compatibility string that the vendor wrote.
    loaded = open_session(engine, entry, whole=whole)
    return dict(loaded.get_modelmeta().custom_metadata_map)
