"""Where scheduling policies are trained and judged: loads on the real kernel, the same ones simulated, experiments."""
