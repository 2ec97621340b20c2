from __future__ import annotations

from pathlib import Path

import pytest

from made_artifact import manifest
from npuops.errors import OptionError
from npuops.models.model import TensorInfo
from npuops.server.device_plan import plan_devices
from npuops.server.model_options import read_model_options
from npuops.server.version_spec import FoundArtifact


def found(name: str, target: str, rows: int = 1) -> FoundArtifact:
    tensors = (TensorInfo(name="x", dtype="float32", shape=(rows, 3)),)
    made = manifest(target=target, inputs=tensors, outputs=tensors)
    return FoundArtifact(name, Path("/repo/m/1") / name, made, ())


def plan(artifacts: list[FoundArtifact], text: str = "") -> list[tuple[str, list[str], int, bool]]:
    devices = plan_devices(artifacts, read_model_options(text))
    return [(item.name, [art.name for art in item.artifacts], item.instances, item.fallback) for item in devices]


NPU1, NPU4, CPU = found("npu1", "vnpu:rk3588"), found("npu4", "vnpu:rk3588", 4), found("cpu", "ort-cpu")


def test_without_a_word_each_target_is_a_device_with_all_its_buckets() -> None:
    assert plan([NPU1, NPU4, CPU]) == [("vnpu:rk3588", ["npu1", "npu4"], 1, False), ("ort-cpu", ["cpu"], 1, False)]


def test_devices_are_those_that_are_named() -> None:
    text = """
    [[device]]
    target = "vnpu:rk3588"
    name = "left"
    [[device]]
    target = "vnpu:rk3588"
    name = "right"
    instances = 2
    [[device]]
    artifact = "cpu"
    fallback = true
    """
    assert plan([NPU1, NPU4, CPU], text) == [
        ("vnpu:rk3588/left", ["npu1", "npu4"], 1, False),
        ("vnpu:rk3588/right", ["npu1", "npu4"], 2, False),
        ("ort-cpu", ["cpu"], 1, True),
    ]


def test_two_devices_of_one_name_are_told_apart() -> None:
    text = '[[device]]\nartifact = "npu1"\n[[device]]\nartifact = "npu4"\n'
    assert [name for name, *_ in plan([NPU1, NPU4], text)] == ["vnpu:rk3588", "vnpu:rk3588#2"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[device]]\ntarget = "vnpu:rk3588s"', "no artifact of this version"),
        ('[[device]]\ntarget = "ort-cpu"\nname = "npu:1"', "no devices with names"),
        ('[[device]]\nartifact = "gpu"', "no artifact of this version"),
        ('[[device]]\ntarget = "ort-cpu"\nfallback = true', "nothing is left"),
    ],
)
def test_what_cannot_be_is_refused(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        plan([NPU1, CPU], text)


def test_two_artifacts_of_one_target_and_shape_need_a_choice() -> None:
    twins = [found("a8w8", "ort-cpu"), found("fp32", "ort-cpu")]
    with pytest.raises(OptionError, match="'a8w8' and 'fp32'"):
        plan(twins)
    assert plan(twins, '[[device]]\nartifact = "fp32"')[0][1] == ["fp32"]
