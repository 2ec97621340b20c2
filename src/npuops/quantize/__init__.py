"""Eight and sixteen bits: calibration, ranges, QDQ graphs, and the cheapest mix that is accurate enough."""
