"""The order of plays, what is played twice, and what an interrupted experiment goes on with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from made_plays import made_head
from npuops.eevdf.mix import Mix
from npuops.errors import ToolchainCrashError
from npuops.schedlab.experiment import (
    Bill,
    Turn,
    arrival_seed,
    cleanest,
    entrants,
    in_order,
    perform,
    quick,
    still_to_play,
)
from npuops.schedlab.line_up import line_up
from npuops.schedlab.mixes import by_name
from npuops.schedlab.play_log import PlayLog, new_log, open_log
from npuops.schedlab.played import Key
from npuops.schedlab.recording import Origin, Recording
from npuops.schedlab.rivals import Rival
from npuops.schedlab.simulated_play import play_simulated
from npuops.schedlab.theatre import CannotPlayError, Take

MIXES = {name: quick(by_name(name)) for name in ("four-phase", "idle")}
RIVALS = line_up(("reactive", "oracle", "reservations"), {}, {})
BILL = Bill(mixes=MIXES, entrants=entrants(RIVALS, (False, True)), repeats=3, seed=4)
TAPE = play_simulated(quick(by_name("idle")), 1)


def take(clean: float | None = None) -> Take:
    tape = TAPE
    return Take(Recording(tape.mix, tape.seed, Origin.KERNEL, tape.records, clean, tape.bin_us, tape.timeline), ())


@dataclass
class Tapes:
    """A theatre that plays what was recorded; it breaks off, or refuses, where it is told to."""

    ends_after: int = 10**9
    played: list[tuple[str, str, int, bool]] = field(default_factory=list)

    def play(self, mix: Mix, rival: Rival, seed: int, *, hints: bool, filmed: bool) -> Take:
        if len(self.played) == self.ends_after:
            raise KeyboardInterrupt
        self.played.append((mix.name, rival.name, seed, hints))
        if rival.name == "reservations":
            raise CannotPlayError("not here")
        if rival.name == "oracle":
            raise ToolchainCrashError("it broke off")
        assert filmed == (seed == arrival_seed(BILL.seed, 0))
        return take(1.0)


def turns(theatre: Tapes) -> list[Turn]:
    return in_order(BILL.turns(theatre), BILL.seed)


def order() -> list[Key]:
    return [turn.key for turn in turns(Tapes())]


def play(theatre: Tapes, log: PlayLog, until_s: float | None = None) -> list[Key]:
    return perform(still_to_play(turns(theatre), log), log, until_s=until_s)


def share(one: Take) -> float | None:
    return one.recording.clean_share


def test_each_rival_plays_each_mix_once_in_every_repeat() -> None:
    keys = order()
    assert set(Counter(keys).values()) == {1}
    assert len(keys) == 2 * 5 * 3
    assert [key[2] for key in keys] == sorted(key[2] for key in keys)


def test_the_order_follows_from_the_seed_and_differs_between_repeats() -> None:
    assert order() == order()
    first, second = ([key[:2] for key in order() if key[2] == repeat] for repeat in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)


def test_only_the_agent_plays_with_and_without_hints() -> None:
    labels = [entrant.label for entrant in BILL.entrants]
    assert labels == ["default", "reservations", "reactive", "reactive + hints", "oracle"]


def test_all_rivals_meet_the_same_arrivals(tmp_path: Path) -> None:
    theatre = Tapes()
    with new_log(tmp_path / "log", made_head()) as log:
        play(theatre, log)
    seeds = Counter(seed for _, _, seed, _ in theatre.played)
    assert len(seeds) == 3
    assert len(set(seeds.values())) == 1


def test_what_cannot_be_played_or_breaks_off_is_kept_with_the_reason(tmp_path: Path) -> None:
    with new_log(tmp_path / "log", made_head()) as log:
        play(Tapes(), log)
        words = {(one.label, one.skipped, one.failed) for one in log.plays.values() if one.outcome is None}
    assert words == {("reservations", "not here", ""), ("oracle", "", "it broke off")}


@pytest.mark.parametrize("ends_after", [0, 1, 17])
def test_an_interrupted_experiment_plays_only_what_is_missing(tmp_path: Path, ends_after: int) -> None:
    with pytest.raises(KeyboardInterrupt), new_log(tmp_path / "log", made_head()) as log:
        play(Tapes(ends_after), log)
    rest = Tapes()
    with open_log(tmp_path / "log") as log:
        before = {one.key for one in log.plays.values() if one.outcome is not None}
        play(rest, log)
        assert set(log.plays) == set(order())
    assert len(rest.played) == len(order()) - len(before)


def test_when_the_time_is_over_the_rest_is_told_and_another_run_plays_it(tmp_path: Path) -> None:
    with new_log(tmp_path / "log", made_head()) as log:
        missing = play(Tapes(), log, until_s=0.0)
        assert len(log.plays) == 1, "one play at least: whoever goes on again and again comes to the end"
        assert set(missing) | set(log.plays) == set(order())
        assert play(Tapes(), log) == []
        assert set(log.plays) == set(order())


def test_what_was_never_played_comes_before_what_broke_off(tmp_path: Path) -> None:
    with new_log(tmp_path / "log", made_head()) as log:
        play(Tapes(), log)
        broken = {key for key, one in log.plays.items() if one.outcome is None}
        assert {turn.key for turn in still_to_play(turns(Tapes()), log)} == broken
        for key in order()[::2]:
            log.plays.pop(key)
        todo = [turn.key in log.plays for turn in still_to_play(turns(Tapes()), log)]
    assert todo == sorted(todo)


def test_a_disturbed_play_is_repeated_and_the_cleanest_kept() -> None:
    shares = iter([0.5, 0.8, 0.7])
    kept, tries = cleanest(lambda: take(next(shares)), share, 3)
    assert (kept.recording.clean_share, tries) == (0.8, 3)


def test_a_clean_play_is_not_repeated() -> None:
    shares = iter([0.5, 0.96])
    assert cleanest(lambda: take(next(shares)), share, 3)[1] == 2
    assert cleanest(lambda: take(None), share, 3)[1] == 1


def test_a_quick_mix_has_the_same_players_and_short_phases() -> None:
    assert max(MIXES["four-phase"].phases_us) == 1_000_000
    assert MIXES["four-phase"].players == by_name("four-phase").players
