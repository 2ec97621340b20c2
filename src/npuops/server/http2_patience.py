"""How long one HTTP/2 connection is waited for: slow beginnings, frames that do not end, silence, a blocked socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from npuops.server.http2_frames import ErrorCode
from npuops.server.http2_streams import Http2Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do this second."""

    is_over: bool = False
    must_ping: bool = False
    code: ErrorCode = ErrorCode.NO_ERROR
    why: str = ""


_WAIT: Final = Verdict()
_PING: Final = Verdict(must_ping=True)


class Patience:
    """Counts seconds, each of something that must not last.

    Attributes:
        drain_s: since the connection takes no new streams.
    """

    def __init__(self, limits: Http2Limits) -> None:
        self._limits = limits
        self._greeting_s = 0
        self._frame_s = 0
        self._block_s = 0
        self._quiet_s = 0
        self._idle_s = 0
        self._paused_s = 0
        self.drain_s = 0

    def heard(self) -> None:
        """Bytes came."""
        self._quiet_s = 0

    def resumed(self) -> None:
        """The socket took what waited: the next time that it is full is another one."""
        self._paused_s = 0

    def advanced(self) -> None:
        """A frame ended, so an unfinished one is a new one."""
        self._frame_s = 0

    def tick(
        self,
        *,
        is_greeted: bool,
        is_mid_frame: bool,
        is_mid_block: bool,
        is_idle: bool,
        is_draining: bool,
        is_paused: bool,
    ) -> Verdict:
        """A second passed."""
        limits = self._limits
        self._quiet_s += 1
        self._greeting_s = 0 if is_greeted else self._greeting_s + 1
        self._frame_s = self._frame_s + 1 if is_mid_frame else 0
        self._block_s = self._block_s + 1 if is_mid_block else 0
        self._idle_s = self._idle_s + 1 if is_idle else 0
        self._paused_s = self._paused_s + 1 if is_paused else 0
        self.drain_s += is_draining
        if self._greeting_s > limits.handshake_s:
            return _over(ErrorCode.SETTINGS_TIMEOUT, "no settings came")
        if max(self._frame_s, self._block_s) > limits.handshake_s:
            return _over(ErrorCode.ENHANCE_YOUR_CALM, "a frame or a header block that does not end")
        if self._paused_s > limits.stall_s:
            return _over(ErrorCode.ENHANCE_YOUR_CALM, "responses are not read")
        if limits.idle_s and self._idle_s > limits.idle_s:
            return _over(ErrorCode.NO_ERROR, "idle")
        if self._quiet_s > limits.keepalive_s + limits.ping_s:
            return _over(ErrorCode.NO_ERROR, "no answer to a PING")
        return _PING if self._quiet_s == limits.keepalive_s else _WAIT


def _over(code: ErrorCode, why: str) -> Verdict:
    return Verdict(is_over=True, code=code, why=why)
