"""The two files of a play, as the load program maps them: the schedule that it follows, the results that it writes.

Every field is a native int64 (`load.h` has the same in C); only the go word is a 32-bit one, as futex(2) wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.eevdf.mix import Activity, Doing, Mix, arrivals_ns
from npuops.errors import DataError
from npuops.schedlab.recording import Record

MAGIC: Final = 0x6E707564
VERSION: Final = 1
BIN_US: Final = 10_000
START_AT: Final = 24
"""Offset in the results of the instant when the mix begins, CLOCK_MONOTONIC ns; written before go is given."""
_WORD: Final = 8
DOINGS: Final = (Doing.REST, Doing.SERVE, Doing.COMPUTE, Doing.SCAN, Doing.CYCLE, Doing.PIPE)
_HEAD, _PLAYER, _ACT, _STAGE, _RESULT, _TALLY = 12, 8, 7, 4, 7, 4
"""Words of each structure."""
_FAILED: Final = 3
_GAP_CUT: Final = 4.0

Words = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How fast this machine works when nobody disturbs it: iterations of the load program per millisecond.

    Attributes:
        compute_per_ms: in the caches.
        scan_per_ms: on a megabyte.
    """

    compute_per_ms: int
    scan_per_ms: int

    def units_per_us(self, doing: Doing) -> float:
        """Units of progress in a microsecond of work; a pipe counts turns, which are not time."""
        if doing is Doing.PIPE:
            return 1.0
        return (self.scan_per_ms if doing is Doing.SCAN else self.compute_per_ms) / 1000


@dataclass(frozen=True, slots=True)
class PlayerResult:
    """How a player ended.

    Attributes:
        pid: its process.
        status: as from wait(2); None while it runs.
        error: errno of what it failed on; 0 if it did not.
        record: what it did.
        bins: float64 of shape (bins): progress in each.
    """

    pid: int
    status: int | None
    error: int
    record: Record
    bins: NDArray[np.float64]


class ScheduleFile:
    """Both files of one play.

    Attributes:
        arrivals: int64 for each player, ns since the mix begins.
        schedule: bytes of the schedule.
        blank: bytes of the results before anything happened.
    """

    def __init__(self, mix: Mix, seed: int, cpus: Sequence[int], calibration: Calibration) -> None:
        """Lay out `mix`; its tasks are pinned to `cpus`, or not at all if there are none."""
        self.mix = mix
        self._calibration = calibration
        self.arrivals = [arrivals_ns(mix, player, seed) for player in mix.players]
        self.bins = -(-mix.duration_us // BIN_US)
        self._results_at = self._place_results()
        self.schedule = self._schedule(seed, tuple(cpus)).tobytes()
        self.blank = self._blank().tobytes()

    def _place_results(self) -> list[int]:
        """Offsets of the players' results, and of the end; each begins on a cache line of its own."""
        found = [64]
        for arrivals in self.arrivals:
            words = _RESULT + _TALLY * len(self.mix.phases_us) + self.bins + len(arrivals)
            found.append(found[-1] + -(-words * _WORD // 64) * 64)
        return found

    def _schedule(self, seed: int, cpus: tuple[int, ...]) -> Words:
        mix, phases, players = self.mix, len(self.mix.phases_us), len(self.mix.players)
        names = [player.name for player in mix.players]
        acts_at = _HEAD + phases + 1 + len(cpus) + players * _PLAYER
        heap_at = acts_at + players * phases * _ACT
        heap: list[Words] = []
        rows: list[int] = []
        acts: list[int] = []
        used = heap_at
        for index, player in enumerate(mix.players):
            peer = names.index(player.peer) if player.peer else -1
            place = (acts_at + index * phases * _ACT) * _WORD
            rows += [player.session, peer, place, used * _WORD, self._results_at[index], 0, *_name(player.name)]
            heap.append(self.arrivals[index])
            used += len(heap[-1])
            edges = np.searchsorted(self.arrivals[index], np.array(mix.starts_us()) * 1000)
            for phase, act in enumerate(player.acts):
                gaps = _gaps_ns(act, mix.phases_us[phase], np.random.default_rng([seed, index, phase, 1]))
                first, end = int(edges[phase]), int(edges[phase + 1])
                acts += [DOINGS.index(act.doing), act.work_us * 1000, act.gap_us * 1000]
                acts += [first, end, used * _WORD, len(gaps)]
                heap.append(gaps)
                used += len(gaps)
        places = [_HEAD * _WORD, (_HEAD + phases + 1) * _WORD, (_HEAD + phases + 1 + len(cpus)) * _WORD]
        speeds = [self._calibration.compute_per_ms, self._calibration.scan_per_ms]
        head = [MAGIC, VERSION, players, phases, len(cpus), self.bins, BIN_US * 1000, *speeds, *places]
        starts = [start * 1000 for start in mix.starts_us()]
        return np.concatenate([np.array([*head, *starts, *cpus, *rows, *acts], np.int64), *heap])

    def _blank(self) -> Words:
        words = np.zeros(self._results_at[-1] // _WORD, np.int64)
        words[:2] = MAGIC, VERSION
        for at, arrivals in zip(self._results_at, self.arrivals, strict=False):
            tallies_at = at + _RESULT * _WORD
            bins_at = tallies_at + _TALLY * len(self.mix.phases_us) * _WORD
            done_at = bins_at + self.bins * _WORD
            words[at // _WORD :][:_RESULT] = 0, 0, 0, -1, done_at, bins_at, tallies_at
            words[done_at // _WORD :][: len(arrivals)] = -1
        return words

    def pids(self, results: bytes | memoryview) -> dict[str, int]:
        """Processes of the players by name.

        Raises:
            DataError: these are not results of this play.
        """
        words = self._checked(results)
        return {
            player.name: int(words[at // _WORD]) for player, at in zip(self.mix.players, self._results_at, strict=False)
        }

    def answers_at(self, number: int) -> slice:
        """Where in the results this player's `done_ns` stands, in bytes."""
        words = _RESULT + _TALLY * len(self.mix.phases_us) + self.bins
        at = self._results_at[number] + words * _WORD
        return slice(at, at + len(self.arrivals[number]) * _WORD)

    def culprit(self, results: bytes | memoryview) -> int | None:
        """Number of the player that ended badly, and so ended the play; None if none did.

        Raises:
            DataError: these are not results of this play.
        """
        number = int(self._checked(results)[2]) >> 32
        return number - 1 if number else None

    def read(self, results: bytes | memoryview) -> tuple[PlayerResult, ...]:
        """What the players wrote, also while they play; a copy.

        Raises:
            DataError: these are not results of this play.
        """
        words = self._checked(results)
        return tuple(self._player(words, index) for index in range(len(self.mix.players)))

    def _checked(self, results: bytes | memoryview) -> Words:
        if len(results) != self._results_at[-1]:
            raise DataError(
                f"results of mix {self.mix.name} have {len(results)} bytes instead of {self._results_at[-1]}",
                advice="they were truncated, or are of another mix or seed: play it again",
            )
        words = np.frombuffer(results, np.int64)
        if tuple(words[:2].tolist()) != (MAGIC, VERSION):
            raise DataError(f"results of mix {self.mix.name} do not begin as such", advice="play it again")
        return words

    def _player(self, words: Words, index: int) -> PlayerResult:
        player, arrivals, phases = self.mix.players[index], self.arrivals[index], len(self.mix.phases_us)
        at = self._results_at[index] // _WORD
        pid, state, error, status = words[at : at + 4].tolist()
        tallies_at = at + _RESULT
        tallies = words[tallies_at:][: _TALLY * phases].reshape(phases, _TALLY).copy()
        bins_at = tallies_at + _TALLY * phases
        bins = words[bins_at:][: self.bins]
        done = words[bins_at + self.bins :][: len(arrivals)].copy()
        speeds = np.array([self._calibration.units_per_us(act.doing) for act in player.acts])
        starts = np.array(self.mix.starts_us()[1:-1], np.int64)
        phase_of_bin = np.searchsorted(starts, np.arange(self.bins) * BIN_US, side="right")
        record = Record(player.name, arrivals, done, tallies[:, 0] / speeds, *tallies[:, 1:].T)
        failed = error if state == _FAILED else 0
        return PlayerResult(pid, None if status < 0 else status, failed, record, bins / speeds[phase_of_bin])


def _gaps_ns(act: Activity, length_us: int, random: np.random.Generator) -> Words:
    """Sleeps between bursts of a CYCLE: as many as the phase can hold."""
    if act.doing is not Doing.CYCLE:
        return np.empty(0, np.int64)
    count = length_us // (act.gap_us + act.work_us) * 2 + 16
    if act.periodic:
        return np.full(count, act.gap_us * 1000, np.int64)
    gaps = np.minimum(random.exponential(act.gap_us, count), _GAP_CUT * act.gap_us)
    found: Words = (gaps * 1000).astype(np.int64)
    return found


def _name(name: str) -> list[int]:
    """As the kernel keeps it (`comm`): fifteen bytes, and a zero."""
    found: list[int] = np.frombuffer(name.encode()[:15].ljust(16, b"\0"), np.int64).tolist()
    return found
