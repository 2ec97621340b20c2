"""The mixes that rivals are judged on."""

from __future__ import annotations

import pytest

from npuops.eevdf.mix import Doing, Mix, arrivals_ns
from npuops.errors import OptionError
from npuops.schedlab.mixes import CONTROLS, HELD_OUT, RESERVED_US, by_name, crowd, four_phase, is_reserved

NAMES = [*HELD_OUT, *CONTROLS]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_gives_its_mix_and_the_same_every_time(name: str) -> None:
    assert by_name(name).name == name
    assert by_name(name) == by_name(name)


def test_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(OptionError) as caught:
        by_name("four-fase")
    assert "four-phase" in caught.value.advice


def test_the_four_phase_mix_is_the_one_of_the_facts() -> None:
    mix = four_phase()
    acts = {player.name: player.acts for player in mix.players}
    assert mix.phases_us == (2_500_000,) * 4
    assert mix.cpus == 1
    assert [act.doing for act in acts["A"]] == [Doing.SERVE, Doing.COMPUTE, Doing.REST, Doing.SERVE]
    assert [act.doing for act in acts["B"]] == [Doing.COMPUTE, Doing.SERVE, Doing.REST, Doing.REST]
    assert [acts[hog] for hog in ("H0", "H1")] == [acts["H0"]] * 2
    assert {act.doing for act in acts["H0"]} == {Doing.SCAN}
    assert [act.doing for act in acts["P0"]] == [Doing.REST, Doing.REST, Doing.REST, Doing.PIPE]
    calm, burst = acts["A"][0], acts["A"][3]
    assert (calm.work_us, calm.gap_us, calm.periodic, calm.slo_us) == (500, 4000, False, 2000)
    assert (burst.work_us, burst.gap_us, burst.periodic, burst.slo_us) == (500, 1100, True, 2000)
    assert len({player.session for player in mix.players}) == 1


def load(mix: Mix, phase: int) -> float:
    acts = [player.acts[phase] for player in mix.players]
    return sum(act.work_us / act.gap_us for act in acts if act.doing is Doing.SERVE)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_can_be_served(name: str) -> None:
    mix = by_name(name)
    assert max(load(mix, phase) for phase in range(len(mix.phases_us))) < mix.cpus


def test_reservations_for_the_whole_crowd_do_not_fit_though_its_work_does() -> None:
    mix = crowd()
    apps = [player for player in mix.players if player.name.startswith("A")]
    each = [max(act.work_us / act.gap_us for act in app.acts if act.doing is Doing.SERVE) for app in apps]
    assert len(apps) >= 5
    assert all(0.3 <= share <= 0.5 for share in each)
    assert sum(each) > 0.95 * mix.cpus


def test_every_player_of_the_sessions_mix_has_one_of_its_own() -> None:
    players = by_name("sessions").players
    assert len({player.session for player in players}) == len(players)


@pytest.mark.parametrize("name", NAMES)
def test_all_work_of_a_judged_mix_is_reserved(name: str) -> None:
    acts = [act for player in by_name(name).players for act in player.acts]
    assert all(is_reserved(act.doing, act.work_us) for act in acts if act.doing in RESERVED_US)


def test_the_same_is_asked_of_every_rival_and_something_else_with_another_seed() -> None:
    mix = four_phase()
    first = arrivals_ns(mix, mix.players[0], 1)
    assert (first == arrivals_ns(mix, mix.players[0], 1)).all()
    other = arrivals_ns(mix, mix.players[0], 2)
    assert len(first) != len(other) or (first != other).any()
