"""What a mix did when it was played: every request and every task, phase by phase; kernel and simulator alike."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from npuops.eevdf.mix import Mix
from npuops.errors import DataError

UNSERVED = -1


class Origin(StrEnum):
    """Who played it."""

    KERNEL = "kernel"
    SIMULATOR = "simulator"


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One player.

    Attributes:
        name: as in the mix.
        arrivals_ns: int64, since the mix began, rising.
        done_ns: int64 of the same shape; `UNSERVED` for what was never answered.
        progress: float64 of shape (phases): us of useful work, turns for a pipe. Work that a change of task cost
            again (a cache to refill) is not in it.
        cpu_ns: int64 of shape (phases): CPU time.
        voluntary: int64 of shape (phases): switches because it had nothing to do.
        involuntary: int64 of shape (phases): switches because another one's turn came.
    """

    name: str
    arrivals_ns: NDArray[np.int64]
    done_ns: NDArray[np.int64]
    progress: NDArray[np.float64]
    cpu_ns: NDArray[np.int64]
    voluntary: NDArray[np.int64]
    involuntary: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One play of a mix.

    Attributes:
        mix: what was played.
        seed: its arrivals depend on it.
        origin: kernel or simulator.
        records: in the order of the mix's players.
        clean_share: of the mix's CPU time that nobody else took, 0 to 1; None where nobody else can be (simulator).
        bin_us: width of a column of `timeline`.
        timeline: float64 of shape (players, bins): progress over time, for plots; no columns if it was not kept.
    """

    mix: Mix
    seed: int
    origin: Origin
    records: tuple[Record, ...]
    clean_share: float | None
    bin_us: int
    timeline: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuse records that are not of this mix.

        Raises:
            DataError: another count, other names, or columns that do not fit its phases or arrivals.
        """
        if [record.name for record in self.records] != [player.name for player in self.mix.players]:
            raise DataError(f"a recording of mix {self.mix.name} has other players than the mix")
        phases = (len(self.mix.phases_us),)
        for one in self.records:
            columns = (one.progress, one.cpu_ns, one.voluntary, one.involuntary)
            if any(column.shape != phases for column in columns) or one.arrivals_ns.shape != one.done_ns.shape:
                raise DataError(f"the recording of {one.name} in mix {self.mix.name} has columns of another length")

    def of(self, name: str) -> Record:
        """The record of the player of this name.

        Raises:
            DataError: there is none.
        """
        for one in self.records:
            if one.name == name:
                return one
        raise DataError(f"mix {self.mix.name} has no player {name!r}")
