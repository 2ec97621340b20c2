"""Cases that can be worked out by hand, played on both sides: the first thing to look at when the two differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from npuops.eevdf.mix import Activity, Doing, Mix, Player
from npuops.eevdf.rules import Rules
from npuops.eevdf.weights import NICE_0, of_nice
from npuops.schedlab.recording import Recording
from npuops.schedlab.schedule_file import Calibration
from npuops.schedlab.validate import play_kernel, simulate
from npuops.schedlab.validation_cells import DEFAULT, Cell, treatment_of
from npuops.schedlab.validation_report import ClosedForm

_HOG: Final = Activity(Doing.COMPUTE)
_NICE: Final = 5


def closed_forms(calibration: Calibration, rules: Rules, *, shield: bool = False) -> Iterator[ClosedForm]:
    """Cases that can be worked out by hand: how long equal hogs run in one go, and how weights share.

    Raises:
        As `play_kernel`.
    """
    tick_ns = 1_000_000_000 // rules.hz
    turn_ms = -(-rules.slice_ns(2) // tick_ns) * tick_ns / 1e6  # nobody is looked at between two ticks
    share = of_nice(_NICE) / (of_nice(_NICE) + NICE_0)
    alike, unlike = _two_hogs({}), _two_hogs({0: _NICE})
    for cell, what, expected, unit in (
        (alike, "how long one of two equal hogs runs in one go", turn_ms, "ms"),
        (unlike, f"the share of a hog at nice {_NICE} beside one at nice 0", share, "of the CPU"),
    ):
        sides = (play_kernel(cell, 0, calibration, shield=shield), simulate(cell, 0, rules))
        kernel, simulator = (_turn_ms(side) if cell is alike else _share(side) for side in sides)
        yield ClosedForm(what=what, expected=expected, kernel=kernel, simulator=simulator, unit=unit)


def _two_hogs(nices: Mapping[int, int]) -> Cell:
    players = tuple(Player(f"H{number}", (_HOG,)) for number in range(2))
    treatment = treatment_of(",".join(f"nice={nice}@H{number}" for number, nice in nices.items()) or DEFAULT)
    return Cell(Mix("two-hogs", (2_000_000,), players, 1), treatment)


def _turn_ms(recording: Recording) -> float:
    spent = sum(float(record.cpu_ns.sum()) for record in recording.records)
    turns = sum(int(record.involuntary.sum()) for record in recording.records)
    return spent / max(1, turns) / 1e6


def _share(recording: Recording) -> float:
    spent = [float(record.cpu_ns.sum()) for record in recording.records]
    return spent[0] / sum(spent)
