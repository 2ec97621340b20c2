"""Words to systemd (sd_notify(3)): that we are up, alive, ending. Nothing happens where nobody asked for them."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

_LEAST_GAP_US: Final = 250_000


class ServiceNotice:
    """One socket for the life of the agent. Closed by `close`."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Read what systemd left in the environment (NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID)."""
        place = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + place[1:] if place.startswith("@") else place
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if place else None
        self._gap_us = _gap_us(environment)
        self._told_us: int | None = None

    def say(self, words: str) -> bool:
        """Such as `READY=1`; False when nobody listens, or cannot take it now: that must never end the agent."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto(words.encode(), self._address)
        except OSError:
            return False
        return True

    def alive(self, now_us: int) -> None:
        """Tell the watchdog, as often as it needs to hear it and no more."""
        if self._gap_us is not None and (self._told_us is None or now_us - self._told_us >= self._gap_us):
            self._told_us = now_us
            self.say("WATCHDOG=1")

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _gap_us(environment: Mapping[str, str]) -> int | None:
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # it watches our parent
    try:
        limit_us = int(environment.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return max(limit_us // 3, 1) if limit_us < 3 * _LEAST_GAP_US else _LEAST_GAP_US
