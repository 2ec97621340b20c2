"""What a play of real programs came to, in figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from npuops.schedlab.outcome import CLEAN, Amount, Count, Share

SCHEMA: Final = "npuops.schedlab-program-outcome/1"


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of the requests of one window.

    Attributes:
        response_us: float64, one each: until its answer, or until it was given up.
        answered: bool, one each.
    """

    response_us: NDArray[np.float64]
    answered: NDArray[np.bool_]


class ProgramOutcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One play.

    Attributes:
        load: its name.
        setting: what ruled: `default`, the name of a policy, or of a static setting.
        seed: of the arrivals.
        seconds: length of the window.
        slo_us: an answer later than this is a miss.
        arrivals: requests whose time came within the window.
        served: of these, answered (within a second after the window).
        in_slo: of these, answered in time. What was never answered, or was refused, is a miss.
        p50_us: of the response times; one that was never answered counts as the time until it was given up.
        p99_us: likewise.
        max_us: likewise. All three are None without arrivals.
        batch_per_s: what the batch side did in each second of the window.
        batch_unit: of that.
        clean_share: of the CPU time in the window that was ours (with rival and client) or idle.
        switches_per_s: context switches of the whole machine; None in documents that do not tell.
        client_ahead: the client ran before all others; None where the program measures itself.
        schema: of this document.
    """

    load: str
    setting: str
    seed: int
    seconds: Amount
    slo_us: Count
    arrivals: Count
    served: Count
    in_slo: Count
    p50_us: Amount | None
    p99_us: Amount | None
    max_us: Amount | None
    batch_per_s: Amount
    batch_unit: str
    clean_share: Share
    client_ahead: bool | None
    switches_per_s: Amount | None = None
    schema: str = SCHEMA

    @property
    def slo_share(self) -> float | None:
        """Share of the requests answered in time; None without any."""
        return self.in_slo / self.arrivals if self.arrivals else None

    @property
    def is_clean(self) -> bool:
        """Whether the load had the machine for itself, nearly."""
        return self.clean_share >= CLEAN
