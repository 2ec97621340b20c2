"""How far the agent goes at most: planners, guard and actuator keep the same bounds, each for itself."""

from __future__ import annotations

from typing import Final

LEAST_NICE: Final = -10
"""Of a task or an autogroup."""
LEAST_SLICE_US: Final = 500
MOST_RESERVED: Final = 0.6
"""Of all CPUs, in reservations: the kernel stops at 0.95, and others need some too."""
