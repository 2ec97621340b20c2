"""Speaks for the apps of a stage: what they would tell the agent themselves, at the pace of our client.

Their hints come of what the stage's processes note of each request. The words go over the agent's own socket; a parent
may speak for its descendants.
"""

from __future__ import annotations

import time
from typing import Final

from npuops.hostsched.hint_client import INTERVAL_US
from npuops.hostsched.hint_line import HintLine
from npuops.hostsched.hint_wire import Word
from npuops.schedlab.stage import Stage
from npuops.schedlab.stage_hints import hint_of

EVERY_US: Final = INTERVAL_US


class HintTeller:
    """For one play."""

    def __init__(self, stage: Stage, path: str) -> None:
        """To the socket at `path`; nothing is said yet."""
        self._stage = stage
        self._line = HintLine(path)

    @property
    def sent(self) -> int:
        """Words that the agent was sent."""
        return self._line.sent

    def tell(self) -> None:
        """One word for each player that has something to tell."""
        stage, start_ns = self._stage, self._stage.start_ns
        if start_ns is None:
            return
        now_us = time.monotonic_ns() // 1000
        since_us = max(now_us - start_ns // 1000, 0)
        for player in stage.mix.players:
            hint = hint_of(stage.mix, player, *stage.answers(player.name), since_us, now_us)
            if hint is not None:
                self._line.send(
                    Word(
                        tid=stage.pids[player.name],
                        whole=True,
                        sent_us=now_us,
                        kind=hint.kind,
                        slo_us=hint.slo_us,
                        slack_us=hint.slack_us,
                        queued=hint.queued,
                        served=hint.served,
                        missed=hint.missed,
                    )
                )

    def close(self) -> None:
        """Hang up."""
        self._line.close()
