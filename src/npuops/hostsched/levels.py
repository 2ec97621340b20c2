"""The levels that a policy may choose from. Their order is part of a trained network's input: append only.

Never FIFO: a task that spins at real-time priority takes the host with it. What lowers others is preferred to what
raises one (facts: with everybody else at nice 19 a task's p99 was half of what nice -10 for itself gave).
"""

from __future__ import annotations

from typing import Final

from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.hostsched.plan import NORMAL, Level

DEMOTE: Final = Level("demote", Setting(nice=19), group_nice=19)
IDLE: Final = Level("idle", Setting(SchedPolicy.IDLE), group_nice=19)
BOOST: Final = Level("boost", Setting(nice=-10), group_nice=-10)
RESERVE_25: Final = Level("reserve 25 %", Setting(SchedPolicy.DEADLINE, runtime_us=1000, period_us=4000))
RESERVE_50: Final = Level("reserve 50 %", Setting(SchedPolicy.DEADLINE, runtime_us=1000, period_us=2000))

LEVELS: Final = (NORMAL, DEMOTE, IDLE, BOOST, RESERVE_25, RESERVE_50)
