"""Shape inference in a child: what kills it kills nobody else."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from hostile_models import HOSTILE, relu
from npuops.models.onnx_trial import TrialFailedError, prove


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize(
    "what", [name for name in HOSTILE if name.endswith(("kills onnx's inference", "divides by zero"))]
)
def test_a_graph_that_kills_inference_kills_only_the_child(what: str, tmp_path: Path) -> None:
    HOSTILE[what][0](tmp_path / "m.onnx")
    before = open_files()
    with pytest.raises(TrialFailedError, match="SIG"):
        prove(onnx.load(tmp_path / "m.onnx"))
    assert open_files() == before


def test_a_sound_graph_passes_and_is_left_as_it_is() -> None:
    model = relu()
    before = model.SerializeToString()
    prove(model)
    prove(model)
    assert model.SerializeToString() == before
