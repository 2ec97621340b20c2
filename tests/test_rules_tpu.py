"""A BM1684X takes what TPU-MLIR lowers to its TPU, in three number formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from npuops.vnpu.rules import rules_of
from rule_nets import layer_called, on_npu, one, only

BM1684X = rules_of("bm1684x")


@pytest.mark.parametrize("op", ["LayerNormalization", "Gelu", "LeakyRelu", "LSTM", "ScatterND", "TopK"])
def test_transformers_and_detectors_run_whole(op: str) -> None:
    assert on_npu(BM1684X, layer_called(op))


def test_what_is_lowered_to_the_cpu_says_so() -> None:
    place = only(BM1684X, layer_called("GatherND"))
    assert (place.rule, place.found) == ("lowered to the CPU", "GatherND")
    assert only(BM1684X, layer_called("GridSample")).found == "mode bilinear"
    assert not on_npu(BM1684X, layer_called("Acosh"))


@pytest.mark.parametrize(("number_format", "taken"), [("fp16", True), ("fp32", True), ("w8a16", False)])
def test_it_computes_in_float_too(number_format: str, taken: bool, tmp_path: Path) -> None:
    assert on_npu(rules_of("bm1684x", number_format), one(tmp_path, "Relu")) is taken
