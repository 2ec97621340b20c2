"""What is played again and again: in which order, what is played twice, what is kept, and when to stop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final, Generic, TypeVar

import numpy as np

from npuops.eevdf.mix import Mix
from npuops.errors import NpuopsError
from npuops.events import Observer, StepFinished, StepProgressed, StepStarted, Warned, ignore
from npuops.schedlab.outcome import CLEAN, judge
from npuops.schedlab.play_log import PlayLog
from npuops.schedlab.played import AnyPlayed, Key, Played, film_of
from npuops.schedlab.rival_names import labelled
from npuops.schedlab.rivals import ByAgent, Rival
from npuops.schedlab.theatre import CannotPlayError, Take, Theatre

QUICK_PHASE_US: Final = 1_000_000
STEP: Final = "play"
Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class Turn:
    """One play that is to come.

    Attributes:
        key: what, under whom, and which repeat.
        load_s: how long the load lasts; setting it up comes on top.
        play: plays it; what cannot be played, or breaks off, is an answer too.
    """

    key: Key
    load_s: float
    play: Callable[[], AnyPlayed]


@dataclass(frozen=True, slots=True)
class Entrant:
    """A rival, and what it is told.

    Attributes:
        rival: who.
        hints: the apps tell it what they do.
    """

    rival: Rival
    hints: bool

    @property
    def label(self) -> str:
        """In tables."""
        return labelled(self.rival.name, hints=self.hints)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """Which mixes are to be played.

    Attributes:
        mixes: by name.
        entrants: everybody; the default has to be among them.
        repeats: of each.
        seed: of arrivals.
        tries: of a play that others disturbed.
    """

    mixes: Mapping[str, Mix]
    entrants: tuple[Entrant, ...]
    repeats: int
    seed: int
    tries: int = 3

    def turns(self, theatre: Theatre) -> list[Turn]:
        """All plays."""
        return [
            self._turn(theatre, mix, entrant, repeat)
            for repeat in range(self.repeats)
            for mix in self.mixes
            for entrant in self.entrants
        ]

    def _turn(self, theatre: Theatre, name: str, entrant: Entrant, repeat: int) -> Turn:
        key = (name, entrant.label, repeat)
        return Turn(key, self.mixes[name].duration_us / 1e6, lambda: self._play(theatre, entrant, key))

    def _play(self, theatre: Theatre, entrant: Entrant, key: Key) -> Played:
        name, label, repeat = key
        mix, seed = self.mixes[name], arrival_seed(self.seed, repeat)

        def once() -> Take:
            return theatre.play(mix, entrant.rival, seed, hints=entrant.hints, filmed=repeat == 0)

        found = attempted(once, lambda take: take.recording.clean_share, self.tries)
        take = found.take
        return Played(
            mix=name,
            label=label,
            repeat=repeat,
            tries=found.tries,
            skipped=found.skipped,
            failed=found.failed,
            outcome=None if take is None else judge(take.recording, label),
            agent=None if take is None else take.agent,
            energy=None if take is None else take.energy,
            film=film_of(take.recording, take.actions) if take is not None and repeat == 0 else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(Generic[Kind]):
    """What came of a play.

    Attributes:
        tries: that it took.
        take: the cleanest; None with words why there is none.
        skipped: it cannot be played here.
        failed: what went wrong.
    """

    tries: int
    take: Kind | None = None
    skipped: str = ""
    failed: str = ""


def attempted(
    play: Callable[[], Kind],
    clean_share: Callable[[Kind], float | None],
    tries: int,
    cannot: tuple[type[NpuopsError], ...] = (CannotPlayError,),
) -> Attempt[Kind]:
    """Play as `cleanest`; that it cannot be played, or breaks off, is an answer too, and the next play may do better.

    Args:
        play: once.
        clean_share: as in `cleanest`.
        tries: at most.
        cannot: errors that say that it cannot be played here.
    """
    try:
        take, took = cleanest(play, clean_share, tries)
    except cannot as error:
        return Attempt(tries=0, skipped=error.message)
    except NpuopsError as error:
        return Attempt(tries=1, failed=error.message)
    except OSError as error:  # no memory, no descriptor, no room: the next play may have it
        return Attempt(tries=1, failed=str(error))
    return Attempt(tries=took, take=take)


def arrival_seed(seed: int, repeat: int) -> int:
    """The same for all rivals, and another one for each repeat."""
    return seed * 1000 + repeat


def entrants(rivals: Sequence[Rival], hearing: Sequence[bool]) -> tuple[Entrant, ...]:
    """Scripts hear nothing, so they play once; the agent plays with each kind of information."""
    return tuple(
        Entrant(rival, hints) for rival in rivals for hints in (hearing if isinstance(rival, ByAgent) else (False,))
    )


def quick(mix: Mix) -> Mix:
    """The same with phases of a second at most."""
    return replace(mix, phases_us=tuple(min(length, QUICK_PHASE_US) for length in mix.phases_us))


def in_order(turns: Iterable[Turn], seed: int) -> list[Turn]:
    """Repeat after repeat; within one all are shuffled, so that a slow spell of the machine meets everybody."""
    by_repeat: defaultdict[int, list[Turn]] = defaultdict(list)
    for turn in turns:
        by_repeat[turn.key[2]].append(turn)
    found: list[Turn] = []
    for repeat, these in sorted(by_repeat.items()):
        places = np.random.default_rng([seed, repeat]).permutation(len(these))
        found += [these[place] for place in places]
    return found


def still_to_play(turns: Iterable[Turn], log: PlayLog) -> list[Turn]:
    """What the log does not have; at the end what could not be played, or broke off, another time."""
    new = [turn for turn in turns if turn.key not in log.plays]
    return new + [turn for turn in turns if turn.key in log.plays and log.plays[turn.key].outcome is None]


def perform(
    todo: Sequence[Turn], log: PlayLog, observe: Observer = ignore, *, until_s: float | None = None
) -> list[Key]:
    """Play, and keep each play before the next one begins.

    A play that breaks off is kept as failed, with the reason, and the next one begins.

    Args:
        todo: as `still_to_play` found them.
        log: keeps them.
        observe: hears how far it is.
        until_s: no play begins after this, by the monotonic clock, but the first one; None: all are played.

    Returns:
        What was not played.

    Raises:
        StorageError: a play cannot be kept.
    """
    began = monotonic()
    load_s = sum(turn.load_s for turn in todo)
    observe(StepStarted(step=STEP, detail=f"{len(todo)} plays, {load_s / 60:.1f} minutes of load"))
    done = 0
    for done, turn in enumerate(todo):
        if done and until_s is not None and monotonic() >= until_s:
            break
        observe(StepProgressed(step=STEP, done=done, total=len(todo), detail=f"{turn.key[0]} under {turn.key[1]}"))
        played = turn.play()
        if played.failed:
            observe(Warned(step=STEP, message=f"{turn.key[0]} under {turn.key[1]}: {played.failed}"))
        log.append(played)
    else:
        done = len(todo)
    observe(StepFinished(step=STEP, seconds=monotonic() - began, detail=f"{done} plays"))
    return [turn.key for turn in todo[done:]]


def cleanest(play: Callable[[], Kind], clean_share: Callable[[Kind], float | None], tries: int) -> tuple[Kind, int]:
    """Play until nobody disturbs; the least disturbed one if that does not come, and how many it took.

    Args:
        play: once.
        clean_share: of the CPU time that nobody else took; None where nobody can.
        tries: at most.
    """
    best: tuple[float, Kind] | None = None
    for number in range(1, tries + 1):
        take = play()
        share = clean_share(take)
        if share is None or share >= CLEAN:
            return take, number
        if best is None or share > best[0]:
            best = share, take
    if best is None:
        raise ValueError("nothing is played no times")
    return best[1], tries
