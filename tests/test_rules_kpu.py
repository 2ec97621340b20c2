"""The K230 takes what nncase lists, ONNX and TFLite each by its own list."""

from __future__ import annotations

from pathlib import Path

from npuops.vnpu.rules import rules_of
from rule_nets import on_npu, one, only, tflite

K230 = rules_of("k230")


def test_listed_operators_are_taken_and_others_named(tmp_path: Path) -> None:
    assert on_npu(K230, one(tmp_path, "Softmax"))
    place = only(K230, one(tmp_path, "Gelu"))
    assert (place.rule, place.found) == ("operator must be on nncase's list", "Gelu")


def test_tflite_has_its_own_list(tmp_path: Path) -> None:
    assert on_npu(K230, tflite("FLOOR_MOD", (1, 4), (1, 4)))
    assert not on_npu(K230, tflite("SPLIT", (1, 4), (1, 2)))
    assert on_npu(K230, one(tmp_path, "Split", outputs=2, axis=1, num_outputs=2))


def test_float16_is_refused(tmp_path: Path) -> None:
    assert only(rules_of("k230", "fp16"), one(tmp_path, "Relu")).found == "fp16"
