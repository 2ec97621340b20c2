"""One quantization by Olive, run by the Python of its own environment: MODEL CALIBRATION.npz OUT uint8|uint16."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"

import numpy as np
from olive.data.config import DataConfig
from olive.data.registry import Registry
from olive.hardware import DEFAULT_CPU_ACCELERATOR
from olive.model import ONNXModelHandler
from olive.passes.olive_pass import create_pass_from_dict
from olive.passes.onnx.quantization import OnnxStaticQuantization


class Rows:
    def __init__(self, file: str) -> None:
        self.arrays = dict(np.load(file))

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, row: int) -> tuple[dict[str, Any], int]:
        if row >= len(self):
            raise IndexError(row)
        return {name: array[row] for name, array in self.arrays.items()}, 0


@Registry.register_dataset("npuops_rows")
def rows(file: str, **_: Any) -> Rows:
    return Rows(file)


@Registry.register_dataloader("npuops_plain")
def plain(dataset: Rows, **_: Any) -> Rows:
    return dataset


def main(model: str, calibration: str, out: str, mode: str) -> None:
    data = DataConfig(
        name="calibration",
        load_dataset_config={"type": "npuops_rows", "params": {"file": calibration}},
        dataloader_config={"type": "npuops_plain"},
    )
    config = {
        "data_config": data,
        "quant_format": "QDQ",
        "activation_type": mode,
        "precision": "int8",
        "per_channel": True,
    }
    step = create_pass_from_dict(
        OnnxStaticQuantization, config, disable_search=True, accelerator_spec=DEFAULT_CPU_ACCELERATOR
    )
    with tempfile.TemporaryDirectory() as folder:
        done = step.run(ONNXModelHandler(model), str(Path(folder) / "out.onnx"))
        shutil.copyfile(done.model_path, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
