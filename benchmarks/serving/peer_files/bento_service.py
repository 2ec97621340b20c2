"""BentoML: a batchable endpoint of one worker; several inputs lie stacked in one array."""

import bentoml
import numpy as np
from peer_session import MAX_ROWS, Session

# Its delay adapts by itself, below this limit; a batchable endpoint of one row is refused.
BATCHING = {"batchable": True, "max_batch_size": MAX_ROWS, "max_latency_ms": 60_000} if MAX_ROWS > 1 else {}


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1024})
class Onnx:
    def __init__(self) -> None:
        self.onnx = Session()

    @bentoml.api(**BATCHING)
    def predict(self, items: np.ndarray) -> np.ndarray:
        names = list(self.onnx.inputs)
        parts = [items] if len(names) == 1 else [items[:, index] for index in range(len(names))]
        arrays = {name: part.astype(self.onnx.inputs[name][1]) for name, part in zip(names, parts, strict=True)}
        return self.onnx.run(arrays)
