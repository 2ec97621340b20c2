from __future__ import annotations

from pathlib import Path

import pytest

from npuops.errors import ToolchainError
from npuops.models.placement import RunsOn
from npuops.targets.qnn_profile import read_profile

HEAD = "Msg Timestamp,Message,Time,Unit of Measurement,Timing Source,Event Level,Event Identifier\n"
ROWS = (
    "0,BACKEND,3730,US,BACKEND,ROOT,Accelerator (load binary) time\n"
    "0,BACKEND,585015,CYCLES,BACKEND,ROOT,Accelerator (execute) time (cycles)\n"
    "0,NODE,387,CYCLES,BACKEND,SUB-EVENT,Input OpId_2 (cycles)\n"
    "0,NODE,54264,CYCLES,BACKEND,SUB-EVENT,Input3_QuantizeLinear:OpId_61 (cycles)\n"
    "0,NODE,289580,CYCLES,BACKEND,SUB-EVENT,Convolution28_token_1:OpId_69 (cycles)\n"
    "0,EXECUTE,39314,US,BACKEND,ROOT,QNN (execute) time\n"
)


def written(folder: Path, text: str) -> Path:
    path = folder / "p.csv"
    path.write_text(text)
    return path


def test_operators_keep_their_order_and_find_their_kind_by_name(tmp_path: Path) -> None:
    costs = read_profile(written(tmp_path, HEAD + ROWS), {"Convolution28": "Conv"})
    assert [(cost.name, cost.op, cost.cost) for cost in costs] == [
        ("Input", "Input", 387.0),
        ("Input3_QuantizeLinear", "Input3_QuantizeLinear", 54264.0),
        ("Convolution28_token_1", "Conv", 289580.0),
    ]
    assert {cost.runs_on for cost in costs} == {RunsOn.NPU}


@pytest.mark.parametrize("text", ["", HEAD, HEAD + "0,NODE,x,CYCLES,B,S,Conv:OpId_1 (cycles)\n", HEAD + "0,NODE\n"])
def test_a_profile_without_operators_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ToolchainError, match="no operator"):
        read_profile(written(tmp_path, text), {})


def test_a_missing_profile_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="no profile"):
        read_profile(tmp_path / "absent.csv", {})
