"""npuops takes a neural network to an NPU and keeps it healthy there."""

__version__ = "0.1.0"
