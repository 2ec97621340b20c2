"""What a report says of energy."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest

from made_plays import made_plays, made_program_plays
from npuops.hostsched.energy_meter import NOT_MEASURED, Energy
from npuops.schedlab.energy_figures import energies, energy_section, energy_words
from npuops.schedlab.played import AnyPlayed, Played


@dataclass
class Used:
    joules: float | None
    words: str = "RAPL: package-0"

    def on(self, plays: list[AnyPlayed]) -> list[AnyPlayed]:
        energy = Energy(joules=self.joules, words=self.words)
        return [msgspec.structs.replace(one, energy=energy) for one in plays]


def test_joules_are_told_for_each_play_and_for_what_was_answered_in_time() -> None:
    plays = Used(30.0).on([*made_program_plays("default", kept=50)]) + Used(20.0).on(
        [*made_program_plays("x", kept=80)]
    )
    found = {one.label: one for one in energies(plays)}
    assert found["default"].joules.median == 30
    assert found["default"].joules_per_1000 is not None
    assert found["default"].joules_per_1000.median == pytest.approx(600)
    assert found["x"].joules_per_1000 is not None
    assert found["x"].joules_per_1000.median == pytest.approx(250)
    assert "| redis-build | x | 20.00 (20.00 to 20.00) | 250.00" in "\n".join(energy_section(list(found.values())))
    assert energy_words(plays) == "joules are the whole machine's, measured in 6 plays (RAPL: package-0)"


def test_where_nothing_measured_the_report_says_why() -> None:
    plays = Used(None, "no meter here").on([*made_plays("default")])
    assert energies(plays) == []
    assert list(energy_section([])) == []
    assert energy_words(plays) == f"{NOT_MEASURED}: no meter here"
    assert energy_words([*made_plays("default")]) == NOT_MEASURED


def test_a_log_of_before_there_was_a_meter_is_still_read() -> None:
    document = msgspec.to_builtins(made_plays("default")[0])
    del document["energy"]
    assert msgspec.convert(document, Played).energy is None
