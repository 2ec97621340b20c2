"""A DPU's filter bank and channel limits break where they say."""

from __future__ import annotations

from pathlib import Path

from npuops.vnpu.rules import rules_of
from rule_nets import on_npu, one, only

DPU = rules_of("dpu-b4096")


def test_a_filter_fills_at_most_2048_entries(tmp_path: Path) -> None:
    assert on_npu(DPU, one(tmp_path, "Conv", (16, 512, 7, 7), data=(1, 512, 14, 14)))
    assert only(DPU, one(tmp_path, "Conv", (16, 700, 7, 7), data=(1, 700, 14, 14))).found == "2156 entries"


def test_channels_times_dilation_are_at_most_4096(tmp_path: Path) -> None:
    model = one(tmp_path, "Conv", (4, 2000, 1, 3), data=(1, 2000, 4, 16), dilations=[1, 4])
    assert only(DPU, model).found == "8000 channels x dilation"


def test_groups_are_not_taken_but_depthwise_is(tmp_path: Path) -> None:
    assert on_npu(DPU, one(tmp_path, "Conv", (8, 1, 3, 3), group=8))
    assert only(DPU, one(tmp_path, "Conv", (8, 4, 3, 3), group=2)).found == "2 groups"


def test_only_8_bits_and_only_its_list(tmp_path: Path) -> None:
    place = only(rules_of("dpu-b4096", "fp16"), one(tmp_path, "Gelu"))
    assert place.rule == "the chip computes in int8; operator must be on the DPU list"
