from __future__ import annotations

from pathlib import Path

from npuops.quantize.quantize import QuantizeOptions, calibrate
from npuops.quantize.sensitivity import rank_units
from small_graphs import BLOCK_INPUT, noise, outlier_block


def test_tensors_with_an_outlier_channel_come_first(tmp_path: Path) -> None:
    samples = noise(BLOCK_INPUT, 8, 0)
    calibrated = calibrate(outlier_block(tmp_path / "f.onnx"), samples, QuantizeOptions())
    ranking = rank_units(calibrated, samples)
    assert {found.unit for found in ranking[:2]} == {"second", "residual"}
    assert [found.sqnr_db for found in ranking] == sorted(found.sqnr_db for found in ranking)
    assert {found.unit for found in ranking} == {"first", "gelu", "second", "residual", "norm", "last"}
