"""npuops takes a neural network to an NPU and keeps it healthy there."""

import os

# ONNX Runtime's official builds make a device id and send events to Microsoft unless this is set before it is loaded.
# It must be here: no module of npuops, and none of its child processes, may load it before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
