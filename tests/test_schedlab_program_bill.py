"""Plays of real programs: who plays which load, and what is kept of those that cannot."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from npuops.errors import OptionError, ToolchainCrashError
from npuops.schedlab.experiment import Turn, in_order
from npuops.schedlab.played import ProgramPlayed
from npuops.schedlab.program_bill import ProgramBill, chosen_programs
from npuops.schedlab.program_line_up import ProgramRival, ProgramScript, program_line_up
from npuops.schedlab.program_load import ProgramLoad
from npuops.schedlab.program_roles import Roles
from npuops.schedlab.program_server import SERVER
from npuops.schedlab.program_wakeups import MESSENGERS
from npuops.schedlab.programs import PROGRAMS
from npuops.schedlab.theatre import CannotPlayError

SECONDS = 0.3


def bill(*rivals: ProgramRival, loads: tuple[ProgramLoad, ...] = (MESSENGERS,), repeats: int = 1) -> ProgramBill:
    return ProgramBill(
        loads={load.name: load for load in loads},
        rivals=rivals,
        hearing=(False, True),
        seconds=SECONDS,
        repeats=repeats,
        seed=4,
        tries=1,
    )


def played(turn: Turn) -> ProgramPlayed:
    found = turn.play()
    assert isinstance(found, ProgramPlayed)
    assert found.key == turn.key
    return found


def test_only_agents_hear_and_only_of_programs_that_speak() -> None:
    rivals = program_line_up(("reactive",))
    labels = {turn.key[:2] for turn in bill(*rivals, loads=(MESSENGERS, SERVER)).turns()}
    assert labels == {
        ("messengers-hogs", "default"),
        ("messengers-hogs", "reactive"),
        ("npuops-serve-xz", "default"),
        ("npuops-serve-xz", "reactive"),
        ("npuops-serve-xz", "reactive + hints"),
    }


def test_each_play_comes_once_in_an_order_that_differs_between_repeats() -> None:
    turns = in_order(bill(*program_line_up(("all",)), loads=tuple(PROGRAMS.values()), repeats=2).turns(), 4)
    keys = [turn.key for turn in turns]
    assert set(Counter(keys).values()) == {1}
    first, second = ([key[:2] for key in keys if key[2] == repeat] for repeat in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)


@pytest.mark.slow
def test_repeats_have_other_arrivals_and_rivals_the_same() -> None:
    turns = bill(*program_line_up(("default-again",)), repeats=2).turns()
    plays = [played(turn) for turn in turns]
    outcomes = [play.outcome for play in plays]
    assert all(one is not None and one.seconds == SECONDS for one in outcomes)
    seeds = {(play.repeat, one.seed, one.arrivals) for play, one in zip(plays, outcomes, strict=True) if one}
    assert len(seeds) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (CannotPlayError("not here"), ("not here", "")),
        (ToolchainCrashError("it broke"), ("", "it broke")),
        (OSError("no room"), ("", "no room")),
    ],
)
def test_what_cannot_be_played_or_breaks_off_is_kept_with_the_reason(error: Exception, kept: tuple[str, str]) -> None:
    def failing(roles: Roles) -> AbstractContextManager[None]:
        assert roles.latency
        raise error

    found = played(bill(ProgramScript(name="x", rival=failing, note="")).turns()[0])
    assert (found.skipped, found.failed, found.outcome) == (*kept, None)


@pytest.mark.slow
def test_the_agent_gets_the_thresholds_that_were_named(tmp_path: Path) -> None:
    thresholds = tmp_path / "reactive.toml"
    thresholds.write_text("no_such_figure = 7\n")
    _, tuned = program_line_up(("tuned-reactive",), thresholds=thresholds)
    found = played(bill(tuned).turns()[0])
    assert "no_such_figure" in found.failed


def test_a_policy_that_is_not_there_is_left_out_without_starting_anything(tmp_path: Path) -> None:
    _, learned = program_line_up(("learned",), folder=tmp_path / "nowhere")
    found = played(bill(learned).turns()[0])
    assert found.skipped == f"{tmp_path / 'nowhere'} holds no learned policy"


def test_programs_that_are_not_here_are_left_out_with_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cc").symlink_to(sys.executable)  # any program: it is only looked for
    monkeypatch.setenv("PATH", str(tmp_path))
    found, left_out = chosen_programs(("messengers-hogs", "redis-build"), is_quick=False)
    assert list(found) == ["messengers-hogs"]
    assert "redis-server, gcc, make not found" in left_out["redis-build"]
    assert "apt install gcc make redis-server" in left_out["redis-build"]


def test_quick_is_one_load_and_names_are_kept() -> None:
    assert len(chosen_programs(("all",), is_quick=True)[0]) == 1
    assert list(chosen_programs(("messengers-hogs",), is_quick=True)[0]) == ["messengers-hogs"]
    assert chosen_programs(("none",), is_quick=False) == ({}, {})


def test_a_load_that_nobody_knows_is_refused() -> None:
    with pytest.raises(OptionError) as caught:
        chosen_programs(("redis-bild",), is_quick=False)
    assert "redis-build" in caught.value.advice
