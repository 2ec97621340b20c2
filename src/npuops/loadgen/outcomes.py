"""What became of each request: raw, exact, as arrays; and what the numbers that end a request mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

REFUSED: Final = -1
LOST: Final = -2
TIMED_OUT: Final = -3
MALFORMED: Final = -4
NO_SOCKET: Final = -5
UNSENT: Final = -6
TRANSPORT: Final[dict[int, str]] = {
    REFUSED: "refused",
    LOST: "lost",
    TIMED_OUT: "timeout",
    MALFORMED: "malformed",
    NO_SOCKET: "no socket",
    UNSENT: "unsent",
}
"""Ends of a request without an answer: no connection, a connection that broke, no answer in time, not the protocol.
The last two are the client's own: no descriptor or port left on its machine, and time over before it came to it."""

GRPC: Final = 1000
"""Added to a gRPC status, so that it cannot be taken for one of HTTP."""
_GRPC_WORDS: Final = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
SHED: Final = frozenset({429, 503, 504, GRPC + 4, GRPC + 8, GRPC + 14})
"""The server said no on purpose: too busy, or too late."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes:
    """One row for each request, in the order of their ends.

    Attributes:
        started_s: since the stage began; in an open loop the instant that was scheduled.
        latency_s: from then to the last byte of the answer, or to the failure.
        lag_s: how much later than scheduled the client came to it; 0 in a closed loop.
        code: HTTP status, `GRPC` + gRPC status, or a negative key of `TRANSPORT`.
        kind: `tenant * inputs + input`.
    """

    started_s: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    lag_s: NDArray[np.float64]
    code: NDArray[np.int16]
    kind: NDArray[np.int32]

    def __len__(self) -> int:
        return int(self.code.size)

    def where(self, mask: NDArray[np.bool_]) -> Outcomes:
        """Only the rows that the mask keeps."""
        return Outcomes(
            started_s=self.started_s[mask],
            latency_s=self.latency_s[mask],
            lag_s=self.lag_s[mask],
            code=self.code[mask],
            kind=self.kind[mask],
        )

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Answered with tensors."""
        found: NDArray[np.bool_] = ((self.code >= 200) & (self.code < 300)) | (self.code == GRPC)
        return found

    @property
    def shed(self) -> NDArray[np.bool_]:
        """Refused on purpose."""
        return np.isin(self.code, list(SHED))


def merged(parts: Sequence[Outcomes]) -> Outcomes:
    """The rows of several processes, whose seconds count from the same instant."""
    return Outcomes(
        started_s=np.concatenate([part.started_s for part in parts]),
        latency_s=np.concatenate([part.latency_s for part in parts]),
        lag_s=np.concatenate([part.lag_s for part in parts]),
        code=np.concatenate([part.code for part in parts]),
        kind=np.concatenate([part.kind for part in parts]),
    )


def code_words(code: int) -> str:
    """`503`, `UNAVAILABLE`, `timeout`."""
    if code < 0:
        return TRANSPORT[code]
    if code < GRPC:
        return str(code)
    number = code - GRPC
    return _GRPC_WORDS[number] if number < len(_GRPC_WORDS) else f"grpc {number}"
