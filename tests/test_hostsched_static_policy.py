from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostsched_frames import Actor, Stage
from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.errors import OptionError
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.levels import BOOST, DEMOTE, IDLE
from npuops.hostsched.static_policy import Default, Static


def levels(policy: Default | Static, stage: Stage) -> dict[str, object]:
    plan = policy.decide(stage.look())
    return {
        actor.name: plan.levels[stage.id(actor.name)] for actor in stage.actors if stage.id(actor.name) in plan.levels
    }


def test_the_default_leaves_everything() -> None:
    assert levels(Default(), Stage(Actor("redis"))) == {}


def test_settings_go_to_the_commands_that_their_patterns_fit_and_the_first_one_counts() -> None:
    stage = Stage(Actor("redis-server"), Actor("make"), Actor("bash"))
    found = levels(Static("static:nice=-10@redis*,idle@make*,demote@*-server"), stage)
    assert set(found) == {"redis-server", "make"}
    assert found["redis-server"].setting == Setting(nice=-10)  # type: ignore[attr-defined]
    assert found["redis-server"].group_nice == -10  # type: ignore[attr-defined]
    assert found["make"] == IDLE


def test_settings_go_to_what_applications_call_themselves() -> None:
    said = {"a": Kind.LATENCY, "b": Kind.BATCH, "c": Kind.BACKGROUND}
    stage = Stage(*(Actor(name, hint=Hint(0, kind)) for name, kind in said.items()), Actor("latency"))
    found = levels(Static("static:boost@latency,demote@batch,idle@background"), stage)
    assert found == {"a": BOOST, "b": DEMOTE, "c": IDLE}


def test_a_setting_may_be_several_things_at_once() -> None:
    stage = Stage(Actor("x"), Actor("y"))
    found = levels(Static("static:batch+nice=5+slice=3ms@x,reserve=1000/2000@y"), stage)
    assert found["x"].setting == Setting(SchedPolicy.BATCH, nice=5, slice_us=3000)  # type: ignore[attr-defined]
    assert found["y"].setting == Setting(SchedPolicy.DEADLINE, runtime_us=1000, period_us=2000)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("static:", "at least one"),
        ("static:idle", "SETTING@WHOM"),
        ("static:idle@", "SETTING@WHOM"),
        ("static:@make", "SETTING@WHOM"),
        ("static:idle@@batch", "two @"),
        ("static:idle@a,,idle@b", "SETTING@WHOM"),
        ("static:nice=-30@a", "-20 to 19"),
        ("static:nice=low@a", "no whole number"),
        ("static:slice=3@a", "cannot be read"),
        ("static:slice=1us@a", "100 to 100000"),
        ("static:reserve=2000/1000@a", "must fit"),
        ("static:reserve=1000/2000+nice=1@a", "beside it"),
        ("static:idle+nice=3@a", "means nothing"),
        ("static:nice=1+nice=2@a", "twice"),
        ("static:fifo@a", "no setting"),
    ],
)
def test_what_cannot_be_read_is_refused_and_says_why(text: str, words: str) -> None:
    with pytest.raises(OptionError) as caught:
        Static(text)
    assert words in caught.value.message


def test_a_misspelt_setting_names_the_nearest() -> None:
    with pytest.raises(OptionError) as caught:
        Static("static:nise=3@a")
    assert "nice=" in caught.value.advice


@given(st.text(alphabet="nicebatchslreserveidl=+@,-0123456789/*msu", max_size=40))
def test_any_text_is_a_policy_or_a_clear_refusal(text: str) -> None:
    whole = "static:" + text
    try:
        name = Static(whole).name
    except OptionError as error:
        name = whole if error.message else "a refusal without a word"
    assert name == whole
