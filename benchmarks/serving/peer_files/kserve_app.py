"""KServe's Python server: one model, the protocol over HTTP and gRPC; it has no batching of its own."""

import logging

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from peer_session import GRPC_PORT, NAME, PORT, Session


class Onnx(Model):
    def __init__(self) -> None:
        super().__init__(NAME)
        self.onnx = Session()
        self.ready = True

    async def predict(self, payload: InferRequest, headers=None, response_headers=None):  # noqa: ARG002 - its signature
        arrays = {}
        for item in payload.inputs:
            shape, kind = self.onnx.inputs[item.name]
            arrays[item.name] = np.asarray(item.as_numpy(), kind).reshape((-1, *shape))
        answer = self.onnx.run(arrays)
        output = InferOutput(self.onnx.output, list(answer.shape), "FP32")
        output.set_data_from_numpy(answer, binary_data=payload.use_binary_outputs)
        return InferResponse(payload.id, NAME, [output], use_binary_outputs=payload.use_binary_outputs)


if __name__ == "__main__":
    logging.disable(logging.INFO)  # it logs four lines a request otherwise, and no other server here logs any
    server = ModelServer(http_port=PORT, grpc_port=GRPC_PORT, workers=1, enable_latency_logging=False)
    server.start([Onnx()])
