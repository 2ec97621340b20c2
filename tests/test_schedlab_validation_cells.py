import pytest

from npuops.eevdf.mix import REST, Doing
from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.errors import OptionError
from npuops.schedlab.validation_cells import (
    DEFAULT,
    FITTED_ON,
    KNOWN,
    MIXES,
    cells,
    mix_of,
    random_treatments,
    treatment_of,
)


def settings_of(text: str, mix: str = "burst") -> dict[str, Setting | None]:
    treatment = treatment_of(text)
    return {player.name: treatment.setting(player) for player in mix_of(mix, 1.0).players}


def test_every_known_setting_means_something_in_some_mix() -> None:
    treatments = [treatment_of(name) for name in KNOWN]
    assert {cell.treatment.name for cell in cells(list(MIXES), treatments, 1.0)} == set(KNOWN)


def test_every_mix_is_played_under_the_default_first() -> None:
    found = cells(list(MIXES), [treatment_of(name) for name in KNOWN], 1.0)
    firsts = {cell.mix.name: cell.treatment.name for cell in reversed(found)}
    assert set(firsts.values()) == {DEFAULT}


def test_a_reservation_is_asked_of_unpinned_mixes_only_and_sessions_are_set_only_where_there_are_some() -> None:
    found = cells(list(MIXES), [treatment_of("reserve 1/4"), treatment_of("group -10")], 1.0)
    assert {(cell.mix.cpus > 1, cell.treatment.name) for cell in found} == {(True, "reserve 1/4"), (False, "group -10")}
    assert {cell.mix.name for cell in found if cell.treatment.name == "group -10"} == {"apart"}


def test_others_are_all_but_the_app() -> None:
    found = settings_of("others nice 19")
    assert found.pop("A") == Setting()
    assert set(found.values()) == {Setting(nice=19)}


def test_kinds_go_by_what_a_player_does() -> None:
    found = settings_of("nice=-3@latency,idle@batch,nice=7@background")
    assert found["A"] == Setting(nice=-3)
    assert found["H0"] == Setting(SchedPolicy.IDLE)
    assert found["P0"] == found["P1"] == Setting(nice=7)


def test_groups_and_tasks_are_set_by_one_text() -> None:
    treatment = treatment_of("group=-10@A,nice=5@H*")
    app, _, hog, *_ = mix_of("apart", 1.0).players
    assert (treatment.group_nice(app), treatment.setting(app)) == (-10, None)
    assert (treatment.group_nice(hog), treatment.setting(hog)) == (None, Setting(nice=5))


def test_random_settings_are_the_seeds() -> None:
    names = [treatment.name for treatment in random_treatments(5, 1)]
    assert names == [treatment.name for treatment in random_treatments(5, 1)]
    assert names != [treatment.name for treatment in random_treatments(5, 2)]


def test_nothing_is_fitted_to_a_setting_that_is_held_out() -> None:
    found = cells(["interactive"], [treatment_of(name) for name in KNOWN], 1.0)
    assert {cell.treatment.name for cell in found if not cell.held_out} == FITTED_ON
    assert sum(cell.held_out for cell in found) > len(FITTED_ON)


@pytest.mark.parametrize("text", ["nonsense", "nice=99@A", "group=x@A", "nice=3"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        treatment_of(text)


def test_a_mix_that_is_not_there_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(OptionError) as refused:
        mix_of("interactiv", 1.0)
    assert "interactive" in refused.value.advice


def test_mixes_of_one_phase_hold_no_player_that_rests() -> None:
    for make in MIXES.values():
        mix = make(2.0)
        assert mix.duration_us == 2_000_000
        assert not any(player.acts == (REST,) for player in mix.players)
        assert any(act.doing is Doing.SERVE for player in mix.players for act in player.acts)
