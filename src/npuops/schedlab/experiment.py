"""Every mix under every rival, again and again: in which order, what is played twice, and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final

import numpy as np

from npuops.eevdf.mix import Mix
from npuops.errors import NpuopsError
from npuops.events import Observer, StepFinished, StepProgressed, StepStarted, Warned, ignore
from npuops.schedlab.outcome import CLEAN, judge
from npuops.schedlab.play_log import PlayLog
from npuops.schedlab.played import Key, Played, film_of
from npuops.schedlab.rival_names import HEARING
from npuops.schedlab.rivals import ByAgent, Rival
from npuops.schedlab.theatre import CannotPlayError, Take, Theatre

QUICK_PHASE_US: Final = 1_000_000
STEP: Final = "play"


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
        return self.rival.name + (HEARING if self.hints else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What is to be played.

    Attributes:
        mixes: by name.
        entrants: everybody; the default has to be among them.
        repeats: of each.
        seed: of arrivals and order.
        tries: of a play that others disturbed.
    """

    mixes: Mapping[str, Mix]
    entrants: tuple[Entrant, ...]
    repeats: int
    seed: int
    tries: int = 3

    def order(self) -> list[Key]:
        """All plays; within a repeat mixes and rivals are shuffled, so that a slow spell of the machine meets all."""
        keys: list[Key] = []
        for repeat in range(self.repeats):
            these = [(mix, entrant.label, repeat) for mix in self.mixes for entrant in self.entrants]
            places = np.random.default_rng([self.seed, repeat]).permutation(len(these))
            keys += [these[place] for place in places]
        return keys

    def seed_of(self, repeat: int) -> int:
        """Of the arrivals: the same for all rivals, and another one for each repeat."""
        return self.seed * 1000 + repeat


def entrants(rivals: Sequence[Rival], hearing: Sequence[bool]) -> tuple[Entrant, ...]:
    """Scripts hear nothing, so they play once; the agent plays with each kind of information."""
    return tuple(
        Entrant(rival, hints) for rival in rivals for hints in (hearing if isinstance(rival, ByAgent) else (False,))
    )


def quick(mix: Mix) -> Mix:
    """The same with phases of a second at most."""
    return replace(mix, phases_us=tuple(min(length, QUICK_PHASE_US) for length in mix.phases_us))


def perform(bill: Bill, theatre: Theatre, log: PlayLog, observe: Observer = ignore) -> None:
    """Play what the log does not have yet; also what could not be played, or broke off, another time.

    A play that breaks off is kept as failed, with the reason, and the next one begins.

    Raises:
        StorageError: a play cannot be kept.
    """
    by_label = {entrant.label: entrant for entrant in bill.entrants}
    todo = [key for key in bill.order() if key not in log.plays or log.plays[key].outcome is None]
    began = monotonic()
    load_s = sum(bill.mixes[key[0]].duration_us for key in todo) / 1e6
    observe(StepStarted(step=STEP, detail=f"{len(todo)} plays, {load_s / 60:.1f} minutes of load"))
    for number, key in enumerate(todo):
        observe(StepProgressed(step=STEP, done=number, total=len(todo), detail=f"{key[0]} under {key[1]}"))
        played = _one(bill, theatre, by_label[key[1]], key)
        if played.failed:
            observe(Warned(step=STEP, message=f"{key[0]} under {key[1]}: {played.failed}"))
        log.append(played)
    observe(StepFinished(step=STEP, seconds=monotonic() - began, detail=f"{len(todo)} plays"))


def _one(bill: Bill, theatre: Theatre, entrant: Entrant, key: Key) -> Played:
    name, label, repeat = key
    mix, seed = bill.mixes[name], bill.seed_of(repeat)
    try:
        take, tries = cleanest(
            lambda: theatre.play(mix, entrant.rival, seed, hints=entrant.hints, filmed=repeat == 0), bill.tries
        )
    except CannotPlayError as error:
        return Played(mix=name, label=label, repeat=repeat, tries=0, skipped=error.message)
    except NpuopsError as error:
        return Played(mix=name, label=label, repeat=repeat, tries=1, failed=error.message)
    return Played(
        mix=name,
        label=label,
        repeat=repeat,
        tries=tries,
        outcome=judge(take.recording, label),
        agent=take.agent,
        film=film_of(take.recording, take.actions) if repeat == 0 else None,
    )


def cleanest(play: Callable[[], Take], tries: int) -> tuple[Take, int]:
    """Play until nobody disturbs; the least disturbed one if that does not come, and how many it took."""
    best: Take | None = None
    for number in range(1, tries + 1):
        take = play()
        share = take.recording.clean_share
        if share is None or share >= CLEAN:
            return take, number
        if best is None or share > (best.recording.clean_share or 0):
            best = take
    if best is None:
        raise ValueError("nothing is played no times")
    return best, tries
