"""What is said of plays: met, missed, harmed, left out; each figure beside the default with the same arrivals."""

from __future__ import annotations

import msgspec
import pytest

from made_plays import made_head, made_plays
from npuops.schedlab.experiment_figures import mix_harms, paired, standings
from npuops.schedlab.experiment_goals import goals
from npuops.schedlab.experiment_report import markdown, report
from npuops.schedlab.played import Played

DEFAULTS = [*made_plays("default", kept=25, p99_us=1000.0), *made_plays("default-again", kept=24, p99_us=1000.0)]
ORACLE = made_plays("oracle", kept=98, progress=90.0)


def verdicts(plays: list[Played], label: str) -> list[bool | None]:
    return [goal.met for goal in goals(plays, standings(plays), mix_harms(plays)) if goal.label == label]


def test_goals_that_are_met_are_said_to_be() -> None:
    rule = made_plays("tuned-reactive", kept=93, progress=90.0, share=0.004)
    learned = made_plays("learned", kept=97, progress=90.0, share=0.004)
    assert verdicts([*DEFAULTS, *ORACLE, *rule, *learned], "learned") == [True] * 5


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        ({"kept": 94, "progress": 90.0}, 0),
        ({"kept": 99, "progress": 86.0}, 0),
        ({"kept": 90, "progress": 90.0}, 1),
        ({"kept": 97, "progress": 84.0}, 2),
        ({"kept": 97, "progress": 90.0, "p99_us": 300.0}, 2),
        ({"kept": 97, "progress": 90.0, "share": 0.02}, 3),
        ({"kept": 20, "progress": 90.0}, 4),
    ],
)
def test_a_goal_that_is_missed_is_said_to_be(figures: dict[str, float], missed: int) -> None:
    rule = made_plays("tuned-reactive", kept=93, progress=90.0)
    learned = made_plays("learned", **{"share": 0.004, **figures})  # type: ignore[arg-type]
    assert verdicts([*DEFAULTS, *ORACLE, *rule, *learned], "learned")[missed] is False


def test_a_quarter_less_p99_beats_the_rule_too() -> None:
    rule = made_plays("tuned-reactive", kept=93, p99_us=10.0)
    learned = made_plays("learned", kept=93, p99_us=7.0)
    assert verdicts([*DEFAULTS, *rule, *learned], "learned")[0] is True


def test_what_was_not_played_is_unknown_and_never_met() -> None:
    learned = made_plays("learned", kept=93)
    assert verdicts([*DEFAULTS, *learned], "learned")[:2] == [None, None]
    assert verdicts(learned, "learned") == [None] * 5


def test_a_loss_within_the_noise_is_no_harm() -> None:
    calm = [*made_plays("default", kept=50), *made_plays("default-again", kept=46)]
    found = {
        harm.label: harm.harmed
        for harm in mix_harms([*calm, *made_plays("x", kept=47), *made_plays("y", kept=40)])
        if harm.measure == "requests in time"
    }
    assert found == {"x": False, "y": True}


def test_plays_stand_beside_the_default_of_the_same_repeat_only() -> None:
    plays = [*made_plays("default", repeats=2), *made_plays("x", repeats=3)]
    assert paired(plays)["crowd", "x"].repeats == (0, 1)


def test_a_rival_without_a_default_has_no_figures_beside_it() -> None:
    found = standings(made_plays("x"))
    assert [one.compared for one in found] == [None, None]
    assert found[0].plays == 3


def test_the_report_tells_of_everybody_also_of_those_who_could_not_play() -> None:
    skipped = Played(mix="crowd", label="reservations", repeat=0, tries=0, skipped="no room at all")
    failed = Played(mix="crowd", label="reactive", repeat=0, tries=1, failed="it broke off badly")
    plays = [*DEFAULTS, *ORACLE, skipped, failed]
    found = report(made_head(), plays, {"oracle": "knows"})
    words = markdown(found, plays)
    for expected in ("no room at all", "it broke off badly", "**oracle**: knows", "joules were not measured"):
        assert expected in words
    again = msgspec.json.decode(msgspec.json.encode(found))
    assert again["schema"] == "npuops.hostsched.bench/1"


def test_an_empty_experiment_has_a_report_too() -> None:
    assert "Goals" in markdown(report(made_head(), [], {}), [])
