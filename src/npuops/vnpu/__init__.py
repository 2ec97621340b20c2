"""The virtual NPU: what a model costs on a real chip, and a device that behaves like one."""
