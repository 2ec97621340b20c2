"""Which loads of real programs are played, and under whom; a load whose programs are not here is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from npuops.errors import MissingToolchainError
from npuops.hostsched.knobs import AdmissionError, NotPermittedError
from npuops.schedlab.agent_policy import is_missing
from npuops.schedlab.experiment import Turn, arrival_seed, attempted
from npuops.schedlab.played import Key, ProgramPlayed
from npuops.schedlab.program_line_up import ProgramRival
from npuops.schedlab.program_load import ProgramLoad
from npuops.schedlab.program_play import ProgramTake, Rival, play_program
from npuops.schedlab.program_rivals import under_agent
from npuops.schedlab.programs import PROGRAMS, program_named
from npuops.schedlab.rival_names import labelled
from npuops.schedlab.rivals import ByAgent
from npuops.schedlab.theatre import CannotPlayError

QUICK_S: Final = 2.0
_CANNOT: Final = (CannotPlayError, AdmissionError, NotPermittedError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramBill:
    """What is to be played.

    Attributes:
        loads: by name; all their commands are here.
        rivals: everybody; the default has to be among them.
        hearing: whether the agent hears hints, in turn; of a load that tells none it never does.
        seconds: length of each play.
        repeats: of each.
        seed: of arrivals.
        tries: of a play that others disturbed.
        arguments: more of them for the agent's command line.
    """

    loads: Mapping[str, ProgramLoad]
    rivals: tuple[ProgramRival, ...]
    hearing: tuple[bool, ...]
    seconds: float
    repeats: int
    seed: int
    tries: int = 3
    arguments: tuple[str, ...] = ()

    def turns(self) -> list[Turn]:
        """All plays."""
        return [
            self._turn(load, rival, repeat, hints=hints)
            for repeat in range(self.repeats)
            for load in self.loads.values()
            for rival in self.rivals
            for hints in (self.hearing if isinstance(rival, ByAgent) and load.hints else (False,))
        ]

    def _turn(self, load: ProgramLoad, rival: ProgramRival, repeat: int, *, hints: bool) -> Turn:
        key = (load.name, labelled(rival.name, hints=hints), repeat)
        return Turn(key, self.seconds, lambda: self._play(load, rival, key, hints=hints))

    def _play(self, load: ProgramLoad, rival: ProgramRival, key: Key, *, hints: bool) -> ProgramPlayed:
        name, label, repeat = key
        seed = arrival_seed(self.seed, repeat)

        def once() -> ProgramTake:
            return play_program(load, self.seconds, self._entered(rival, hints=hints), setting=label, seed=seed)

        found = attempted(once, lambda take: take.outcome.clean_share, self.tries, _CANNOT)
        take = found.take
        return ProgramPlayed(
            load=name,
            label=label,
            repeat=repeat,
            tries=found.tries,
            skipped=found.skipped,
            failed=found.failed,
            outcome=None if take is None else take.outcome,
            agent=None if take is None else take.agent,
            energy=None if take is None else take.energy,
        )

    def _entered(self, rival: ProgramRival, *, hints: bool) -> Rival:
        if not isinstance(rival, ByAgent):
            return rival.rival
        if missing := is_missing(rival):
            raise CannotPlayError(missing)
        return under_agent(rival, hints=hints, arguments=self.arguments)


def chosen_programs(names: Sequence[str], *, is_quick: bool) -> tuple[dict[str, ProgramLoad], dict[str, str]]:
    """By name, in the order in which they are named: `all`, or `none`.

    Args:
        names: of loads.
        is_quick: of `all`, only the first one whose programs are here.

    Returns:
        Those that can be played, and by name why others cannot.

    Raises:
        OptionError: no load of that name.
    """
    if tuple(names) == ("none",):
        return {}, {}
    loads = [load for name in names for load in (PROGRAMS.values() if name == "all" else (program_named(name),))]
    found: dict[str, ProgramLoad] = {}
    left_out: dict[str, str] = {}
    for load in loads:
        try:
            load.demand()
        except MissingToolchainError as error:
            left_out[load.name] = f"{error.message}; {error.advice}"
        else:
            found[load.name] = load
    if is_quick and "all" in names:
        found = dict(list(found.items())[:1])
    return found, left_out
