"""Rivals in the simulator: scripts exactly at the start of a phase, policies through the agent's loop and guard."""

from __future__ import annotations

from pathlib import Path

import pytest

from npuops.eevdf.rules import Rules
from npuops.eevdf.setting import Setting
from npuops.errors import MissingToolchainError
from npuops.schedlab.experiment import quick
from npuops.schedlab.experiment_figures import standings
from npuops.schedlab.line_up import line_up, search_statics
from npuops.schedlab.mixes import by_name
from npuops.schedlab.outcome import judge
from npuops.schedlab.played import Action, Played, film_of
from npuops.schedlab.plots import draw
from npuops.schedlab.rivals import ByAgent, StaticRule
from npuops.schedlab.simulated_theatre import PINNED, SimulatedTheatre
from npuops.schedlab.static_search import Place, grid, search
from npuops.schedlab.theatre import CannotPlayError, Take

MIX = quick(by_name("four-phase"))
TWO = quick(by_name("four-phase-2"))
RIVALS = {rival.name: rival for rival in line_up(("all",), {}, {})}
pytestmark = pytest.mark.slow


def played(name: str, *, hints: bool = False) -> Take:
    return SimulatedTheatre().play(MIX, RIVALS[name], 1, hints=hints, filmed=True)


def share(take: Take) -> float:
    found = judge(take.recording).slo_share
    assert found is not None
    return found


def test_whoever_knows_more_serves_more() -> None:
    default, hinted, bound = played("default"), played("reactive", hints=True), played("oracle-fifo")
    assert share(default) < share(hinted) < share(bound)


def test_an_oracle_acts_at_the_first_moment_of_a_phase() -> None:
    take = played("oracle")
    assert {action.at_us for action in take.actions} == {0, 1_000_000, 2_000_000, 3_000_000}
    assert Action(2_000_000, "H0", "normal") in take.actions


def test_what_a_policy_did_is_told_with_its_moments() -> None:
    take = played("reactive", hints=True)
    assert take.actions
    assert all(0 < action.at_us < MIX.duration_us for action in take.actions)
    assert {action.player for action in take.actions} <= {player.name for player in MIX.players}


def test_reservations_are_refused_on_one_cpu_and_serve_on_two() -> None:
    with pytest.raises(CannotPlayError, match="pinned") as told:
        played("reservations")
    assert told.value.message == PINNED
    assert share(SimulatedTheatre().play(TWO, RIVALS["reservations"], 1, hints=False, filmed=False)) > 0.95


def test_a_policy_that_is_not_there_cannot_play(tmp_path: Path) -> None:
    for rival in (
        ByAgent(name="x", policy="learned", note="", folder=tmp_path),
        ByAgent(name="x", policy="reactive", note="", thresholds=tmp_path / "none.toml"),
    ):
        with pytest.raises(CannotPlayError, match=str(tmp_path)):
            SimulatedTheatre().play(MIX, rival, 1, hints=False, filmed=False)


def test_a_film_has_every_request() -> None:
    take = played("default")
    film = film_of(take.recording, take.actions)
    outcome = judge(take.recording)
    assert sum(film.arrivals) == sum(part.arrivals for part in outcome.parts)
    assert sum(film.in_slo) == sum(part.in_slo for part in outcome.parts)


def test_the_best_static_setting_is_no_worse_than_the_default_and_the_fair_one_is_fair() -> None:
    rules = [StaticRule(app=Setting(nice=nice)) for nice in (-20, -5)]
    found = search([Place(MIX, 1, Rules())], rules)
    default = found.trials[0]
    assert default.rule == StaticRule()
    assert default.worst_progress == 1.0
    assert found.best.slo_share >= found.best_fair.slo_share >= default.slo_share
    assert found.best_fair.worst_progress >= 0.85


def test_the_grid_has_no_rule_twice_and_the_default_in_it() -> None:
    rules = list(grid())
    assert len(set(rules)) == len(rules)
    assert StaticRule() in rules


def test_only_what_a_rival_needs_is_searched() -> None:
    assert search_statics(("default", "reactive"), [], {}) == ({}, {})
    statics, here = search_statics(("static-here",), [], {"m": [Place(MIX, 1, Rules())]}, [StaticRule()])
    assert statics == {}
    assert here == {"static-here": {"m": StaticRule()}, "fair-static-here": {"m": StaticRule()}}


def test_plots_are_drawn_as_svg_and_png(tmp_path: Path) -> None:
    plays = []
    for name in ("default", "oracle"):
        take = played(name)
        film = film_of(take.recording, take.actions)
        outcome = judge(take.recording, name)
        plays.append(Played(mix=MIX.name, label=name, repeat=0, tries=1, outcome=outcome, film=film))
    try:
        files = draw(tmp_path, plays, standings(plays), {MIX.name: MIX})
    except MissingToolchainError as error:
        pytest.skip(error.message)
    assert sorted(file.name for file in files) == sorted(file.name for file in tmp_path.iterdir())
    assert len(files) == 4
    assert (tmp_path / "rivals.svg").read_bytes().startswith(b"<?xml")
