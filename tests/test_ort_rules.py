from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as state

from npuops.errors import CompileError
from npuops.models.open import open_model
from npuops.models.placement import Placement, RunsOn
from npuops.targets.ort_engine import CPU_PROVIDER
from npuops.targets.ort_rules import CONTRIBUTED, WITHOUT_KERNEL, place_on_ort
from npuops.targets.protocol import Precision
from ort_targets import build

NO_END = 2**31 - 1


def kernels() -> dict[tuple[str, str], list[tuple[int, int]]]:
    """Domain and operator → the ranges of opsets that the installed ORT has CPU kernels for."""
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for kernel in state.get_all_opkernel_def():
        if kernel.provider == CPU_PROVIDER:
            found.setdefault((kernel.domain, kernel.op_name), []).append(kernel.version_range)
    return found


def one_node(path: Path, op: str, *, domain: str = "", opset: int = 17, **attributes: int) -> Path:
    node = helper.make_node(op, ["x"], ["y"], name="it", domain=domain, **attributes)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def placed(path: Path) -> Placement:
    (place,) = place_on_ort(open_model(path))
    return place


def test_the_contributed_operators_are_those_that_the_installed_ort_has_kernels_for() -> None:
    assert {name for domain, name in kernels() if domain == "com.microsoft"} == CONTRIBUTED


def test_the_standard_operators_without_a_kernel_are_those_of_the_installed_ort() -> None:
    have, lacking = kernels(), {}
    for schema in onnx.defs.get_all_schemas_with_history():
        since = schema.since_version
        plain = not (schema.has_function or schema.has_context_dependent_function or schema.deprecated)
        if schema.domain or not 7 <= since <= 25 or not plain or schema.name == "Constant":
            continue
        # A kernel without an end is for the opset that it begins with: nobody knows what a later one means.
        ranges = have.get(("", schema.name), [])
        if not any(first == since or (first <= since <= last < NO_END) for first, last in ranges):
            lacking[schema.name] = min(since, lacking.get(schema.name, since))
    assert lacking | {"Bernoulli": 22} == WITHOUT_KERNEL  # Bernoulli is a function of RandomUniformLike


@pytest.mark.parametrize(
    ("op", "domain", "opset", "found"),
    [
        ("Relu", "", 17, ""),
        ("RandomUniformLike", "", 17, ""),
        ("RandomUniformLike", "", 22, "RandomUniformLike of opset 22"),
        ("Gelu", "com.microsoft", 17, ""),
        ("NhwcConv", "com.microsoft", 17, "com.microsoft.NhwcConv"),
        ("Scaler", "ai.onnx.ml", 17, ""),
        ("Relu", "acme", 17, "domain acme"),
    ],
)
def test_what_has_no_kernel_is_named(op: str, domain: str, opset: int, found: str, tmp_path: Path) -> None:
    place = placed(one_node(tmp_path / "m.onnx", op, domain=domain, opset=opset))
    assert (place.found, place.runs_on) == (found, RunsOn.CPU if found else RunsOn.NPU)


@pytest.mark.parametrize(("op", "domain", "opset"), [("RandomUniformLike", "", 22), ("NhwcConv", "com.microsoft", 17)])
def test_the_compiler_refuses_what_the_rules_name(op: str, domain: str, opset: int, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=op):
        build("ort-cpu", one_node(tmp_path / "m.onnx", op, domain=domain, opset=opset), Precision.FP32, tmp_path / "o")


def test_a_recurrent_layer_with_the_batch_first_is_named(tmp_path: Path) -> None:
    shapes: dict[str, list[int]] = {"x": [1, 5, 4], "w": [1, 8, 4], "r": [1, 8, 8], "y": [1, 5, 1, 8]}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    node = helper.make_node("RNN", ["x", "w", "r"], ["y"], name="it", hidden_size=8, layout=1)
    graph = helper.make_graph([node], "g", [values[name] for name in "xwr"], [values["y"]])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    assert (placed(path).rule, placed(path).found) == ("layout must be 0", "layout 1")
    with pytest.raises(CompileError, match=r"[Bb]atchwise|layout"):
        build("ort-cpu", path, Precision.FP32, tmp_path / "o")
