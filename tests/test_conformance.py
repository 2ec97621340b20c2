from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from npuops.models.model import Model
from npuops.models.open import open_model
from npuops.targets.conformance import BrokenPromiseError, Subject, check_all
from npuops.targets.protocol import Compilation, CompileOptions, Precision, Probe
from npuops.targets.report import SupportReport
from npuops.targets.toy import ToyTarget
from npuops.testing import check_target, random_samples
from onnx_models import mlp


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


def subject(target: ToyTarget, folder: Path) -> Subject:
    model = open_model(mlp(folder / "m.onnx"))
    inputs: Mapping = random_samples(model.inputs, 1, 0).inputs[0]
    return Subject(target=target, model=model, precision=Precision.FP32, inputs=inputs, scratch=folder / "s")


def test_the_toy_target_keeps_every_promise(tmp_path: Path) -> None:
    outcomes = check_target("toy", mlp(tmp_path / "m.onnx"))
    assert len(outcomes) == 6
    assert all(not outcome.skipped for outcome in outcomes)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Misnamed, "no target 'not-registered'"),
        (Mute, "says why, and what to install"),
        (Forgetful, "names every layer in order"),
        (Random, "differs between two compilations"),
        (Gullible, "accepted the option"),
    ],
)
def test_a_target_that_breaks_a_promise_is_caught(kind: type[ToyTarget], words: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenPromiseError, match=words):
        check_all(subject(kind(), tmp_path))
