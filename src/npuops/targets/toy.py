"""`toy`: the smallest target that is complete. Read it before you write one.

Its "chip" takes a handful of operators at batch 1, in float32 only; its "compiler" writes the graph down
with a header; its runner is a numpy interpreter of that handful. It needs no vendor SDK, so the house's
own tests run everywhere, and it is used only when it is asked for by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from npuops import __version__
from npuops.artifacts.manifest import Artifact
from npuops.errors import CompileError, IncompatibleArtifactError, OptionError, RunError, ToolchainError
from npuops.models.model import Model
from npuops.models.placement import RunsOn
from npuops.targets.inputs import check_inputs
from npuops.targets.protocol import (
    Compilation,
    CompileOptions,
    Family,
    OpCost,
    Precision,
    Probe,
    Profile,
    Runner,
    Tensors,
    Traits,
)
from npuops.targets.registry import unknown_variant
from npuops.targets.report import SupportReport, support_report
from npuops.targets.rules import OpRules, batch_one, constant_weights, dtypes_in, place, rank_at_most, static_shapes
from npuops.targets.vendor_options import checked_options
from npuops.units import Basis

MEMORY_BYTES = 64 * 1024 * 1024
MAGIC = b"toy program 1\n"

Array = NDArray[Any]


def _gemm(node: onnx.NodeProto, a: Array, b: Array, c: Array | None = None) -> Array:
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    left = a.T if attributes.get("transA") else a
    right = b.T if attributes.get("transB") else b
    product = np.asarray(attributes.get("alpha", 1.0) * (left @ right), dtype=a.dtype)
    return product if c is None else np.asarray(product + attributes.get("beta", 1.0) * c, dtype=a.dtype)


def _softmax(node: onnx.NodeProto, x: Array, *, flat: bool = False) -> Array:
    given = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), None)
    if flat:
        axis = (1 if given is None else given) % x.ndim
        rows = x.reshape(int(np.prod(x.shape[:axis])), -1)
        return _softmax(onnx.NodeProto(), rows).reshape(x.shape)
    axis = -1 if given is None else given
    shifted = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=axis, keepdims=True))


def _flatten(node: onnx.NodeProto, x: Array) -> Array:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


KERNELS: Mapping[str, Callable[..., Array]] = {
    "Add": lambda _, a, b: a + b,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "MatMul": lambda _, a, b: a @ b,
    "Relu": lambda _, x: np.maximum(x, 0),
    "Softmax": _softmax,
}

KERNELS_BEFORE_13: Mapping[str, Callable[..., Array]] = {**KERNELS, "Softmax": partial(_softmax, flat=True)}
"""Until opset 12 Softmax flattened what comes from its axis on into one."""

RULES: OpRules = {op: (constant_weights(),) if op in {"Gemm", "MatMul"} else () for op in KERNELS}
EVERYWHERE = (static_shapes(), batch_one(), rank_at_most(4), dtypes_in(frozenset({"float32"})))


@dataclass(frozen=True, slots=True)
class ToyTarget:
    """One toy chip."""

    name: str = "toy"

    @property
    def traits(self) -> Traits:
        """Float only; it really runs here, so a clock around it measures."""
        return Traits(precisions=(Precision.FP32,), default_precision=Precision.FP32, run_basis=Basis.MEASURED)

    @property
    def runner(self) -> Runner:
        """The numpy interpreter."""
        return ToyRunner()

    @property
    def references(self) -> Mapping[str, Runner]:
        """None: the runner is exact already."""
        return {}

    def probe(self) -> Probe:
        """Always here."""
        return Probe(target=self.name, available=True, toolchain={"npuops": __version__}, can_run="numpy")

    def check(self, model: Model) -> SupportReport:
        """Place by `RULES`; the chip has 64 MiB."""
        return support_report(self.name, model, place(model, RULES, everywhere=EVERYWHERE), limit_bytes=MEMORY_BYTES)

    def compile(self, model: Model, options: CompileOptions, folder: Path) -> Compilation:
        """Write the graph behind a header, if every node is supported.

        Raises:
            CompileError: a node is not supported; there is no partial placement on this chip.
            OptionError: the toy compiler has no options, and one precision.
        """
        if options.precision not in self.traits.precisions:
            raise OptionError(f"{self.name} cannot do {options.precision}", advice="it can do fp32")
        checked_options(self.name, options.vendor, (), reserved={})
        placement = place(model, RULES, everywhere=EVERYWHERE)
        refused = [node for node in placement if node.runs_on is RunsOn.CPU]
        if refused:
            words = "; ".join(f"{node.name} ({node.op}): {node.rule}, found {node.found}" for node in refused)
            raise CompileError(f"toy cannot take: {words}", advice="npuops check --fix may cure some of these")
        proto = onnx.load(model.path)
        (folder / "program.toy").write_bytes(MAGIC + proto.SerializeToString(deterministic=True))
        return Compilation(entry="program.toy", files=("program.toy",), placement=placement)

    def profile(self, artifact: Artifact, inputs: Tensors) -> Profile:
        """Time each kernel once."""
        session = ToyRunner().open(artifact)
        costs: list[OpCost] = []
        session.run(inputs, costs)
        return Profile(basis=Basis.MEASURED, unit="us", source=f"toy {__version__}", ops=tuple(costs))


class ToyRunner:
    """Opens toy programs."""

    def open(self, artifact: Artifact) -> ToySession:
        """Parse the program.

        Raises:
            IncompatibleArtifactError: it does not begin with the header of this version.
            ToolchainError: it is damaged.
        """
        data = artifact.entry.read_bytes()
        if not data.startswith(MAGIC):
            raise IncompatibleArtifactError(f"{artifact.entry.name} is not a toy program", advice="build it again")
        try:
            program = onnx.load_from_string(data[len(MAGIC) :])
        except DecodeError as error:
            raise ToolchainError(f"toy cannot load {artifact.entry.name}: {error}", advice="build it again") from error
        return ToySession(artifact, program)


class ToySession:
    """Interprets the graph, one node after the other."""

    def __init__(self, artifact: Artifact, program: onnx.ModelProto) -> None:
        self.inputs = artifact.manifest.inputs
        self.outputs = artifact.manifest.outputs
        self._graph = program.graph
        opset = next((item.version for item in program.opset_import if item.domain in {"", "ai.onnx"}), 0)
        self._kernels = KERNELS if opset >= 13 else KERNELS_BEFORE_13
        self._constants = {item.name: onnx.numpy_helper.to_array(item) for item in self._graph.initializer}

    def run(self, inputs: Tensors, costs: list[OpCost] | None = None) -> dict[str, Array]:
        """One inference; with `costs`, the time of each node is appended there."""
        check_inputs(inputs, self.inputs)
        values: dict[str, Array] = {**self._constants, **inputs}
        for node in self._graph.node:
            started = time.perf_counter_ns()
            try:
                operands = (values[name] for name in node.input if name)
                values[node.output[0]] = self._kernels[node.op_type](node, *operands)
            except (ValueError, KeyError) as error:
                raise RunError(f"toy failed at {node.name}: {error}") from error
            if costs is not None:
                spent_us = (time.perf_counter_ns() - started) / 1000
                costs.append(OpCost(name=node.name, op=node.op_type, runs_on=RunsOn.NPU, cost=spent_us))
        return {tensor.name: np.asarray(values[tensor.name], dtype=tensor.dtype) for tensor in self.outputs}

    def close(self) -> None:
        """Nothing is held."""


def _make(variant: str | None) -> ToyTarget:
    if variant is not None:
        raise unknown_variant("toy", variant, ())
    return ToyTarget()


FAMILY = Family(name="toy", summary="a tiny complete example of a target (numpy)", variants=(), make=_make)
