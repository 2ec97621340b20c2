"""One quantization by NNCF, run by the Python of its own environment: MODEL CALIBRATION.npz OUT default|transformer."""

from __future__ import annotations

import sys

import nncf
import numpy as np
import onnx


def main(model: str, calibration: str, out: str, mode: str) -> None:
    arrays = dict(np.load(calibration))
    rows = [{name: array[row] for name, array in arrays.items()} for row in range(len(next(iter(arrays.values()))))]
    kind = nncf.ModelType.TRANSFORMER if mode == "transformer" else None
    done = nncf.quantize(onnx.load(model), nncf.Dataset(rows), subset_size=len(rows), model_type=kind)
    onnx.save(done, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
