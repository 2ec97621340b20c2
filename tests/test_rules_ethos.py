"""An Ethos-U takes what Vela takes, in 8 and 16 bits."""

from __future__ import annotations

from pathlib import Path

from npuops.targets import ethos_u_rules
from npuops.targets.ethos_u_configs import Generation
from npuops.vnpu.rules import rules_of
from npuops.vnpu.rules_ethos import place_on
from rule_nets import on_npu, one, only


def test_the_list_is_the_one_of_the_real_target(tmp_path: Path) -> None:
    for op in ("Softmax", "Erf"):
        model = one(tmp_path, op)
        assert place_on(model, Generation.U85) == ethos_u_rules.place_on(model, Generation.U85)


def test_float16_is_refused_beside_what_else_is_broken(tmp_path: Path) -> None:
    half = rules_of("ethos-u85-512", "fp16")
    assert only(half, one(tmp_path, "Relu")).found == "fp16"
    assert only(half, one(tmp_path, "Erf")).found == "fp16; Erf"
    assert on_npu(rules_of("ethos-u85-512", "w8a16"), one(tmp_path, "Relu"))
