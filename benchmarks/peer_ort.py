"""One quantization by plain onnxruntime.quantization: MODEL CALIBRATION.npz OUT per-tensor|per-channel."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static


class Rows(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    def __init__(self, file: str) -> None:
        arrays = dict(np.load(file))
        self._rows: Iterator[dict[str, Any]] = (
            {name: array[row] for name, array in arrays.items()} for row in range(len(next(iter(arrays.values()))))
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._rows, None)


def main(model: str, calibration: str, out: str, mode: str) -> None:
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8} if mode == "per-channel" else {}
    quantize_static(model, out, Rows(calibration), per_channel=mode == "per-channel", **kinds)


if __name__ == "__main__":
    main(*sys.argv[1:])
