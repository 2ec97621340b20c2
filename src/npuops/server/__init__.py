"""The Open Inference Protocol over HTTP and gRPC, and the repository of models behind it."""
