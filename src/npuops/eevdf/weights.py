"""Weights of the fair scheduler: each step of nice is a quarter more or less CPU against an equal.

Source: `sched_prio_to_weight` in kernel/sched/core.c, the table that user space sees through cpu.weight.nice.
"""

from __future__ import annotations

from typing import Final

from npuops.eevdf.setting import LEAST_NICE, SchedPolicy, Setting

NICE_0: Final = 1024
IDLE: Final = 3
BY_NICE: Final = (
    *(88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916),
    *(9548, 7620, 6100, 4904, 3906, 3121, 2501, 1991, 1586, 1277),
    *(1024, 820, 655, 526, 423, 335, 272, 215, 172, 137),
    *(110, 87, 70, 56, 45, 36, 29, 23, 18, 15),
)
"""From nice -20 to 19."""


def of_nice(nice: int) -> int:
    """Weight of a task at this nice value."""
    return BY_NICE[nice - LEAST_NICE]


def of(setting: Setting) -> int:
    """Weight of a task of the fair class."""
    return IDLE if setting.policy is SchedPolicy.IDLE else of_nice(setting.nice)
