"""Triton's python backend: the requests of a batch are joined, run once, and split again."""

import json
import os
import sys

# The stub embeds the system's Python, which looks neither into a virtual environment nor at PYTHONPATH.
sys.path.append(os.environ["BENCH_PACKAGES"])

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        settings = {key: value["string_value"] for key, value in config["parameters"].items()}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(settings["threads"])
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(settings["file"], options, providers=["CPUExecutionProvider"])
        self.inputs = [item.name for item in self.session.get_inputs()]
        self.output = self.session.get_outputs()[0].name

    def execute(self, requests):
        arrays = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            for request in requests
        ]
        if len(arrays) == 1:
            answers = [self.session.run([self.output], arrays[0])[0]]
        else:
            rows = [len(array[self.inputs[0]]) for array in arrays]
            joined = {name: np.concatenate([array[name] for array in arrays]) for name in self.inputs}
            answers = np.split(self.session.run([self.output], joined)[0], np.cumsum(rows)[:-1])
        return [pb_utils.InferenceResponse([pb_utils.Tensor(self.output, answer)]) for answer in answers]
