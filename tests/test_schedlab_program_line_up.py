"""Who plays real programs: everybody that need not know what a program will do, with the options of the mixes."""

from __future__ import annotations

from pathlib import Path

import pytest

from npuops.errors import OptionError
from npuops.schedlab.line_up import line_up
from npuops.schedlab.mixes import CONTROLS, HELD_OUT
from npuops.schedlab.program_line_up import STATICS, program_line_up
from npuops.schedlab.programs import PROGRAMS
from npuops.schedlab.rival_names import NAMES, PROGRAM_NAMES, STATIC_SETTINGS
from npuops.schedlab.rivals import ByAgent


def names(*wanted: str) -> list[str]:
    return [rival.name for rival in program_line_up(wanted)]


def test_everybody_is_in_the_order_of_tables_and_no_oracle_is_among_them() -> None:
    assert names("all") == list(PROGRAM_NAMES)


def test_the_default_always_plays() -> None:
    assert names("reactive") == ["default", "reactive"]
    assert names("oracle") == ["default"]


@pytest.mark.parametrize("static", sorted(STATICS))
def test_the_best_static_setting_is_looked_for_among_all(static: str) -> None:
    assert names(static) == ["default", *STATIC_SETTINGS]


@pytest.mark.parametrize("name", NAMES)
def test_every_rival_of_the_mixes_is_a_name_here_too(name: str) -> None:
    assert "default" in names(name)


def test_a_name_that_nobody_has_is_refused() -> None:
    with pytest.raises(OptionError, match="orakle"):
        program_line_up(("orakle",))


def test_agents_get_the_folder_and_the_thresholds_that_were_named(tmp_path: Path) -> None:
    thresholds, folder = tmp_path / "reactive.toml", tmp_path / "policy"
    thresholds.write_text("")
    given, of_mixes = (
        {rival.name: rival for rival in rivals if isinstance(rival, ByAgent)}
        for rivals in (
            program_line_up(("all",), thresholds=thresholds, folder=folder),
            line_up(("all",), {}, {}, thresholds=thresholds, folder=folder),
        )
    )
    assert given == of_mixes
    assert given["tuned-reactive"].thresholds == thresholds
    assert given["learned"].folder == folder


def test_no_mix_is_called_like_a_load_of_programs() -> None:
    assert not PROGRAMS.keys() & {*HELD_OUT, *CONTROLS}
