"""What a model is: reading ONNX and TFLite safely, layers with shapes and costs, the bundled zoo."""
