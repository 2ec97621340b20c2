"""Where a model can run: the seams, and one file per vendor toolchain."""
