"""What is said of real programs: beside the default, the best static setting, who was worse, what was left out."""

from __future__ import annotations

import msgspec

from made_plays import made_head, made_plays, made_program_plays
from npuops.schedlab.experiment_report import markdown, report
from npuops.schedlab.played import ProgramPlayed
from npuops.schedlab.program_figures import ProgramFigures, ProgramStanding, program_harms, program_standings
from npuops.schedlab.program_report import program_lines

DEFAULTS = [*made_program_plays("default", kept=50), *made_program_plays("default-again", kept=48)]


def figures(plays: list[ProgramPlayed], left_out: dict[str, str] | None = None) -> ProgramFigures:
    return ProgramFigures(
        loads={"redis-build": "redis beside a build"},
        rivals={"reactive": "the rule"},
        left_out=left_out or {},
        standings=program_standings(plays),
        harms=program_harms(plays),
        energies=[],
    )


def standing(plays: list[ProgramPlayed], label: str) -> ProgramStanding:
    return next(one for one in program_standings(plays) if one.label == label)


def test_the_batch_side_is_compared_with_the_default_of_the_same_repeat() -> None:
    plays = [*made_program_plays("default", repeats=2, batch=50.0), *made_program_plays("x", repeats=3, batch=40.0)]
    found = standing(plays, "x")
    assert found.batch_share is not None
    assert (found.batch_share.median, found.batch_share.plays, found.plays) == (0.8, 2, 3)


def test_the_best_static_setting_is_found_in_hindsight_and_the_fair_one_beside_it() -> None:
    greedy = made_program_plays("autogroup -20", kept=99, batch=40.0)
    fair = made_program_plays("autogroup -5", kept=90, batch=90.0)
    poor = made_program_plays("nice -10", kept=50, batch=100.0)
    agent = made_program_plays("reactive", kept=100, share=0.01)
    plays = [*DEFAULTS, *greedy, *fair, *poor, *agent]
    best = {one.label: one.best for one in program_standings(plays) if one.best}
    assert best == {"autogroup -20": ("static",), "autogroup -5": ("fair-static",)}


def test_whoever_is_worse_than_the_default_beyond_noise_is_told() -> None:
    plays = [*DEFAULTS, *made_program_plays("x", kept=47), *made_program_plays("y", kept=40)]
    plays += made_program_plays("reactive", kept=30, share=0.01)
    assert {harm.label: harm.harmed for harm in program_harms(plays) if harm.measure == "requests in time"} == {
        "x": True,
        "y": True,
        "reactive": True,
    }
    found = report(made_head(), [], {}, figures(plays))
    assert [goal.met for goal in found.goals if goal.label == "reactive"] == [False]
    assert "**worse**" in markdown(found, [], plays)
    assert any("worse than the default" in line for line in program_lines(found.programs))


def test_a_harm_to_programs_spoils_the_goal_of_the_mixes() -> None:
    mixes = [*made_plays("default", kept=25), *made_plays("reactive", kept=95)]
    programs = [*DEFAULTS, *made_program_plays("reactive", kept=30)]
    verdicts = {goal.goal: goal.met for goal in report(made_head(), mixes, {}, figures(programs)).goals}
    assert verdicts["never worse than the default beyond noise, on any load"] is False


def test_the_report_has_a_section_for_programs_and_tells_what_is_missing() -> None:
    skipped = ProgramPlayed(load="redis-build", label="learned", repeat=0, tries=0, skipped="nobody trained one")
    failed = ProgramPlayed(load="redis-build", label="reservations", repeat=0, tries=1, failed="redis fell over")
    plays = [*DEFAULTS, *made_program_plays("reactive", kept=97, share=0.01), skipped, failed]
    left_out = {"nginx-sysbench": "nginx not found; apt install nginx"}
    found = report(made_head(), [], {}, figures(plays, left_out), {"redis-build": 4, "crowd": 2})
    words = markdown(found, [], plays)
    for expected in (
        "## Real programs",
        "### redis-build",
        "nobody trained one",
        "redis fell over",
        "nginx-sysbench was left out",
        "apt install nginx",
        "6 plays are missing",
        "--resume",
        "| reactive | 97.0",
    ):
        assert expected in words
    again = msgspec.json.decode(msgspec.json.encode(found))
    assert again["missing"] == {"redis-build": 4, "crowd": 2}
    assert {one["label"] for one in again["programs"]["standings"]} >= {"default", "reactive", "learned"}


def test_without_programs_nothing_is_said_of_them() -> None:
    plays = made_plays("default")
    assert "Real programs" not in markdown(report(made_head(), plays, {}), plays)
