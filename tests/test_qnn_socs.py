from __future__ import annotations

import pytest

from npuops.targets.protocol import Precision
from npuops.targets.qnn_socs import ARCHITECTURES, SOCS, chips_with


def test_every_name_is_lower_case_and_every_architecture_is_one_that_the_vendor_knows() -> None:
    assert all(name == soc.name == name.lower() for name, soc in SOCS.items())
    assert {soc.arch for soc in SOCS.values()} == set(ARCHITECTURES)


def test_an_architecture_alone_takes_quantized_graphs_only() -> None:
    bare = [soc for soc in SOCS.values() if soc.soc_model is None]
    assert [soc.name for soc in bare] == [f"v{arch}" for arch in ARCHITECTURES]
    assert all(precision.is_quantized for soc in bare for precision in soc.precisions)


def test_bf16_is_known_to_work_on_one_chip() -> None:
    assert chips_with(Precision.BF16) == ("sc8480xp",)


@pytest.mark.parametrize(("name", "fp16"), [("sm8650", True), ("qcm6490", False), ("ssg2115p", False)])
def test_fp16_follows_the_table(name: str, fp16: bool) -> None:
    assert (Precision.FP16 in SOCS[name].precisions) is fp16
    assert (name in chips_with(Precision.FP16)) is fp16
