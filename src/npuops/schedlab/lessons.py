"""Where policies learn: simulated machines drawn by a seed, each with another load, kernel, loop and openness."""

from __future__ import annotations

from typing import Final

import numpy as np

from npuops.eevdf.rules import Rules
from npuops.schedlab.others import Others
from npuops.schedlab.scene import Scene
from npuops.schedlab.training_mixes import training_mix

_PERIODS_US: Final = (10_000, 20_000, 20_000, 50_000, 100_000)
"""The agent's own; within its budget it looks ten to twenty times a second on most machines."""
_HZ: Final = (250, 250, 250, 1000, 100)
_MOST_CPUS: Final = 2
_PINNED: Final = {1: 0.7, 2: 0.2}
"""How often a mix may not run on all CPUs of its host, by the number of its own; such tasks get no reservation."""


def lesson(number: int) -> Scene:
    """Draw one. In four of ten nobody tells anything, in four everybody does, in the rest some do."""
    random = np.random.default_rng([number, 77])
    cpus = int(random.integers(1, _MOST_CPUS + 1))
    mix = training_mix(number, cpus)
    rules = Rules(
        hz=int(random.choice(_HZ)),
        switch_cost_ns=int(random.integers(800, 4_000)),
        cache_refill_ns=int(random.integers(5_000, 60_000)),
        tick_jitter_ns=int(random.integers(0, 20_000)),
    )
    openness = random.choice([0.0, 1.0, random.random()], p=[0.4, 0.4, 0.2])
    telling = tuple(player.name for player in mix.players if random.random() < openness)
    pinned = bool(random.random() < _PINNED[cpus])
    period_us = int(random.choice(_PERIODS_US))
    others = Others(
        seed=number,
        busy_share=random.choice([0.0, 0.1, 0.3, 0.8]),
        runnable=random.choice([0.0, 0.2, 1.0, 3.0]),
        pushes_per_s=float(random.integers(0, 100)),
    )
    return Scene(mix, int(random.integers(1 << 30)), rules, telling, pinned, period_us, others)
