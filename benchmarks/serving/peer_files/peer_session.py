"""What every Python peer serves: one ONNX Runtime session, told by environment variables which model and how."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime

MODEL = os.environ["BENCH_MODEL"]
NAME = os.environ["BENCH_NAME"]
MAX_ROWS = int(os.environ.get("BENCH_MAX_ROWS", "1"))
THREADS = int(os.environ.get("BENCH_THREADS", "1"))
PORT = int(os.environ.get("BENCH_HTTP_PORT", "8080"))
GRPC_PORT = int(os.environ.get("BENCH_GRPC_PORT", "8081"))
DELAY_S = 0.002
TYPES = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int64)": np.int64}


class Session:
    """Runs rows that lie along the first axis."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
        self.inputs = {
            item.name: (tuple(size if isinstance(size, int) else 1 for size in item.shape[1:]), TYPES[item.type])
            for item in self.session.get_inputs()
        }
        self.output = self.session.get_outputs()[0].name

    def run(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        return self.session.run([self.output], arrays)[0]

    def row(self, body: dict[str, list]) -> dict[str, np.ndarray]:
        """One row of each input from JSON lists."""
        return {name: np.asarray(body[name], kind).reshape(shape) for name, (shape, kind) in self.inputs.items()}

    def row_of_bytes(self, body: bytes) -> dict[str, np.ndarray]:
        """One row of each input from their bytes, one after the other."""
        rows, at = {}, 0
        for name, (shape, kind) in self.inputs.items():
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            rows[name] = np.frombuffer(body[at : at + size], kind).reshape(shape)
            at += size
        return rows

    def run_rows(self, rows: list[dict[str, np.ndarray]]) -> np.ndarray:
        """Rows joined into one batch."""
        return self.run({name: np.stack([row[name] for row in rows]) for name in self.inputs})
