from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from npuops.errors import CompileError
from npuops.models.model import Model
from npuops.models.open import open_model
from npuops.targets.conformance import BrokenPromiseError, Subject, check_all
from npuops.targets.protocol import Compilation, CompileOptions, Precision, Probe
from npuops.targets.registry import open_target
from npuops.targets.report import SupportReport
from npuops.targets.toy import ToyTarget
from npuops.testing import check_target, random_samples
from onnx_models import mlp, save


@dataclass(frozen=True, slots=True)
class Misnamed(ToyTarget):
    name: str = "not-registered"


class Mute(ToyTarget):
    def probe(self) -> Probe:
        return Probe(target="toy", available=False, why_not="broken")


class Forgetful(ToyTarget):
    def check(self, model: Model) -> SupportReport:
        report = super().check(model)
        return replace(report, placement=replace(report.placement, nodes=report.placement.nodes[1:]))


class Random(ToyTarget):
    def compile(self, model: Model, options: CompileOptions, folder: Path) -> Compilation:
        compilation = super().compile(model, options, folder)
        with (folder / compilation.entry).open("ab") as out:
            out.write(str(folder).encode())
        return compilation


class Gullible(ToyTarget):
    def compile(self, model: Model, options: CompileOptions, folder: Path) -> Compilation:
        return super().compile(model, replace(options, vendor={}), folder)


class Raising(ToyTarget):
    def probe(self) -> Probe:
        raise ZeroDivisionError("a bug in their file")


class Unwilling(ToyTarget):
    def compile(self, model: Model, options: CompileOptions, folder: Path) -> Compilation:
        del model, options, folder
        raise CompileError("no")


class Exporter(ToyTarget):
    """Compiles for a device that is elsewhere."""

    @property
    def runner(self) -> None:  # type: ignore[override]
        return None


def subject(target: ToyTarget, folder: Path) -> Subject:
    model = open_model(mlp(folder / "m.onnx"))
    inputs: Mapping = random_samples(model.inputs, 1, 0).inputs[0]
    return Subject(target=target, model=model, precision=Precision.FP32, inputs=inputs, scratch=folder / "s")


def test_the_toy_target_keeps_every_promise(tmp_path: Path) -> None:
    outcomes = check_target("toy", mlp(tmp_path / "m.onnx"))
    assert len(outcomes) == 6
    assert all(not outcome.skipped for outcome in outcomes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Misnamed, "no target 'not-registered'"),
        (Mute, "says why, and what to install"),
        (Forgetful, "names every layer in order"),
        (Random, "differs between two compilations"),
        (Gullible, "accepted the option"),
        (Raising, "probe_answers: ZeroDivisionError: a bug in their file"),
        (Unwilling, "compile_is_deterministic: CompileError: no"),
    ],
)
def test_a_target_that_breaks_a_promise_is_caught(kind: type[ToyTarget], words: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenPromiseError, match=words):
        check_all(subject(kind(), tmp_path))


def test_a_promise_about_sessions_is_not_called_kept_where_there_are_none(tmp_path: Path) -> None:
    outcomes = {outcome.promise: outcome.skipped for outcome in check_all(subject(Exporter(), tmp_path))}
    assert outcomes["sessions_obey"] == "nothing on this machine runs what toy compiles"
    assert not any(skipped for promise, skipped in outcomes.items() if promise != "sessions_obey")


@pytest.mark.slow
def test_a_model_of_scalars_and_of_free_sizes_can_be_used(tmp_path: Path) -> None:
    for name, shape in (("scalar", []), ("free", ["n", "m"])):
        values = [helper.make_tensor_value_info(which, TensorProto.FLOAT, shape) for which in "xy"]
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="relu")], "g", values[:1], values[1:])
        model = open_model(save(graph, tmp_path / f"{name}.onnx"))
        inputs = {"x": np.ones([2] * len(shape), np.float32)}
        target = open_target("ort-cpu")
        case = Subject(target=target, model=model, precision=Precision.FP32, inputs=inputs, scratch=tmp_path / name)
        assert not any(outcome.skipped for outcome in check_all(case))
