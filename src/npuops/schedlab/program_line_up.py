"""The rivals that real programs are played under: those of the mixes that need not know what a program will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from npuops.schedlab.line_up import line_up
from npuops.schedlab.program_play import Rival
from npuops.schedlab.program_rivals import (
    batch_weighted,
    left_alone,
    niced,
    policed,
    reserved,
    sliced,
    weighted,
)
from npuops.schedlab.rival_names import (
    AGAIN,
    BATCH_POLICIES,
    BATCH_WEIGHTS,
    DEFAULT,
    FAIR,
    FAIR_HERE,
    NICE,
    PROGRAM_NAMES,
    RESERVE,
    SLICES,
    STATIC,
    STATIC_HERE,
    STATIC_SETTINGS,
    WEIGHTS,
)
from npuops.schedlab.rivals import ByAgent

STATICS: Final = frozenset({STATIC, FAIR, STATIC_HERE, FAIR_HERE})
"""Any of these asks for all static settings: the best one is found by playing them."""
_RESERVED_US: Final = (1000, 4000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramScript:
    """A rival that knows which program answers.

    Attributes:
        name: in tables.
        rival: what it sets.
        note: what it is, for people.
    """

    name: str
    rival: Rival
    note: str


ProgramRival = ProgramScript | ByAgent


def program_line_up(
    names: Sequence[str], *, thresholds: Path | None = None, folder: Path | None = None
) -> tuple[ProgramRival, ...]:
    """The rivals of these names that can be played, in the order of tables; the default is always among them.

    Args:
        names: as in `rival_names.NAMES`; `all` for all of them.
        thresholds: of the tuned reactive rule; None: those that ship.
        folder: of the learned policy; None: the one that ships.

    Raises:
        OptionError: no rival of that name.
    """
    rivals: dict[str, ProgramRival] = {rival.name: rival for rival in _scripts()}
    agents = [
        rival for rival in line_up(names, {}, {}, thresholds=thresholds, folder=folder) if isinstance(rival, ByAgent)
    ]
    rivals |= {rival.name: rival for rival in agents}
    wanted = set(PROGRAM_NAMES if "all" in names else names) | {DEFAULT, *(rival.name for rival in agents)}
    if wanted & STATICS:
        wanted |= {*STATIC_SETTINGS}
    return tuple(rivals[name] for name in PROGRAM_NAMES if name in wanted)


def _scripts() -> list[ProgramScript]:
    runtime_us, period_us = _RESERVED_US
    return [
        ProgramScript(name=DEFAULT, rival=left_alone, note="everything as the kernel sets it"),
        ProgramScript(name=AGAIN, rival=left_alone, note="the same a second time: what differs is noise"),
        *(
            ProgramScript(
                name=name, rival=niced(nice), note=f"each thread that answers at {name}; counts within its session only"
            )
            for name, nice in NICE.items()
        ),
        *(
            ProgramScript(
                name=name, rival=sliced(us), note=f"each thread that answers with a slice of {us} us; likewise"
            )
            for name, us in SLICES.items()
        ),
        *(
            ProgramScript(name=name, rival=weighted(nice), note=f"each session that answers at nice {nice}")
            for name, nice in WEIGHTS.items()
        ),
        *(
            ProgramScript(name=name, rival=policed(policy), note=f"each thread that works in bulk under {policy.name}")
            for name, policy in BATCH_POLICIES.items()
        ),
        *(
            ProgramScript(name=name, rival=batch_weighted(nice), note=f"each session that works in bulk at nice {nice}")
            for name, nice in BATCH_WEIGHTS.items()
        ),
        ProgramScript(
            name=RESERVE,
            rival=reserved(runtime_us, period_us),
            note=f"SCHED_DEADLINE, {runtime_us / 1000:g} ms in every {period_us / 1000:g} ms for each thread that "
            "answers, the busiest first, as many as the kernel admits",
        ),
    ]
