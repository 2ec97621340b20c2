"""MLServer: a custom runtime, as its documentation shows; adaptive batching is set in model-settings.json."""

import numpy as np
from mlserver import MLModel, types
from mlserver.codecs import NumpyCodec
from peer_session import Session


class OnnxRuntime(MLModel):
    async def load(self) -> bool:
        self.onnx = Session()
        return True

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        arrays = {
            item.name: np.asarray(self.decode(item, default_codec=NumpyCodec), self.onnx.inputs[item.name][1])
            for item in payload.inputs
        }
        answer = NumpyCodec.encode_output(self.onnx.output, self.onnx.run(arrays))
        return types.InferenceResponse(id=payload.id, model_name=self.name, outputs=[answer])
