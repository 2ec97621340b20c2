"""What counts as harm beside the default, and what the batch side may pay."""

from __future__ import annotations

import msgspec
import pytest

from made_plays import made_plays, made_program_plays
from npuops.schedlab.experiment_figures import mix_harms
from npuops.schedlab.played import ProgramPlayed
from npuops.schedlab.program_figures import program_harms


def verdicts(plays: list[ProgramPlayed]) -> dict[str, bool]:
    return {harm.measure: harm.harmed for harm in program_harms(plays) if harm.label == "x"}


def with_p99(plays: list[ProgramPlayed], us: float) -> list[ProgramPlayed]:
    return [
        msgspec.structs.replace(one, outcome=msgspec.structs.replace(one.outcome, p99_us=us))
        for one in plays
        if one.outcome is not None
    ]


CALM = [*made_program_plays("default"), *made_program_plays("default-again")]


def test_a_longer_p99_is_harm_even_where_as_many_are_in_time() -> None:
    assert verdicts([*CALM, *with_p99(made_program_plays("x"), 12.0)]) == {
        "requests in time": False,
        "p99": True,
        "batch progress": False,
    }
    assert not verdicts([*CALM, *with_p99(made_program_plays("x"), 10.4)])["p99"], "within what is always noise"


def test_a_p99_within_the_noise_of_a_second_default_is_no_harm() -> None:
    noisy = [*made_program_plays("default"), *with_p99(made_program_plays("default-again"), 13.0)]
    assert not verdicts([*noisy, *with_p99(made_program_plays("x"), 12.0)])["p99"]


@pytest.mark.parametrize(("batch", "harmed"), [(100.0, False), (86.0, False), (84.0, True)])
def test_the_batch_side_of_who_serves_may_pay_down_to_the_goal(batch: float, harmed: bool) -> None:
    assert verdicts([*CALM, *made_program_plays("x", batch=batch)])["batch progress"] is harmed


def test_nothing_is_said_of_a_play_whose_default_is_missing() -> None:
    assert program_harms(made_program_plays("x")) == []


def test_mixes_are_measured_in_the_same_three_ways() -> None:
    plays = [*made_plays("default"), *made_plays("x", p99_us=1000.0)]
    found = {(harm.mix, harm.measure) for harm in mix_harms(plays)}
    assert {measure for _, measure in found} >= {"requests in time", "p99"}
